"""What the commands of a backup say of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import structlog

from modelyard.backup.manifest import BackupManifest
from modelyard.backup.restore import Begin
from modelyard.cli.terminal.output import progress
from modelyard.telemetry.logs import configure_logging


def facts(manifest: BackupManifest) -> dict[str, Any]:
    """A manifest for programs, without its list of files."""
    told: dict[str, Any] = msgspec.to_builtins(manifest)
    files = told.pop("files")
    return told | {"files": len(files), "size_bytes": manifest.size_bytes}


@contextmanager
def watched(label: str, quiet: bool) -> Iterator[Begin]:
    """A bar over the bytes of a backup, once its manifest says how many."""
    with ExitStack() as opened:

        def begin(manifest: BackupManifest) -> Callable[[int], object]:
            return opened.enter_context(progress(label, manifest.size_bytes, in_bytes=True, quiet=quiet))

        yield begin


def quiet_events() -> None:
    """Events go to standard error, so that `--json` owns standard output; refusals are said by the command."""
    if not structlog.is_configured():
        configure_logging("debug" if os.environ.get("MODELYARD_DEBUG") == "1" else "error")
