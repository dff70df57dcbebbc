"""A copy that is killed anywhere is taken up by the next one (promises P1, P13)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from installation import between, go_on
from sqlalchemy import Connection, Engine, event

from modelyard.core.errors import SettingsError
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.storage.sql.open import open_stores
from modelyard.testing import FakeClock
from modelyard.transfer.copy import Copied, copy
from modelyard.transfer.side import Side

SOME = 22
"""Every so many commits one is tried; the long form tries each."""


def killed_at(commit: int, source: Side, target: Side) -> bool:
    """Runs the copy in a process that dies by SIGKILL instead of its commit of this number; whether it died."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            reached = 0

            def count(_connection: Connection) -> None:
                nonlocal reached
                if reached == commit:
                    os.kill(os.getpid(), signal.SIGKILL)
                reached += 1

            event.listen(Engine, "commit", count)
            copy(source, target, FakeClock(), 0.0)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_a_killed_copy_is_taken_up(kind: str, source: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """P1 P13: kill -9 of one run after the other, each further on, while the source goes on: meanwhile nobody opens
    what is half there, and the run that ends brings all of it, equal in every table."""
    kill_again_and_again(kind, source, tmp_path, request, SOME)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_a_copy_killed_at_every_commit_is_taken_up(
    kind: str, source: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same, instead of each commit."""
    kill_again_and_again(kind, source, tmp_path, request, 1)


def kill_again_and_again(kind: str, source: Settings, folder: Path, request: pytest.FixtureRequest, step: int) -> None:
    """Each run is killed `step` commits further on than the one before."""
    named = str(folder / "new") if kind == "sqlite" else request.getfixturevalue(kind).empty()
    sides = between(source.data, named)
    opened = Settings(data=folder / "new", database=DatabaseSettings(url=sides[1].settings.database.url))
    kills = half = 0
    while killed_at(kills * step, *sides):
        kills += 1
        if kills == 3:
            go_on(source)
        half += not _opens(opened)
    assert kills >= 4
    assert half >= 2
    assert _opens(opened)
    found: Copied = copy(*sides, FakeClock(), 0.0)
    assert found.written.keys() == {"audit_events"}
    print(f"\n{kind}: {kills} kills, after {half} of which the target did not open; equal at the end")


def _opens(settings: Settings) -> bool:
    try:
        open_stores(settings, settings.data).close()
    except SettingsError as error:
        return error.code != "copy_unfinished"
    return True
