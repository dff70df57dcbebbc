"""`modelyard audit` on a data folder: what it prints, and that a broken log has an exit code."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run, parsed

from modelyard.audit.acting import local_user
from modelyard.audit.chain import START, Head
from modelyard.audit.event import Change
from modelyard.audit.vocabulary import AuditAction
from modelyard.cli.backends.remote import RemoteBackend
from modelyard.core.errors import CommandError, InvalidRequestError
from modelyard.http.forms.trail import verification_view
from modelyard.storage.sql.open import DATABASE_FILE
from modelyard.testing import MemoryAuditLog


@pytest.fixture
def run(run: Run) -> Run:
    """Runs a command on a folder in which a key was made and revoked."""
    made = parsed(run("keys", "create", "acme", "--json"))
    assert run("keys", "revoke", made["id"]).exit_code == 0
    return run


def test_the_command_line_is_on_record(run: Run) -> None:
    """Every local change is by the user of the process; pages go on where the last one ended; filters select."""
    first = parsed(run("audit", "list", "--limit", "2", "--json"))
    rest = parsed(run("audit", "list", "--cursor", first["next_cursor"], "--json"))
    events = first["events"] + rest["events"]
    assert [event["action"] for event in events] == ["key:revoke", "key:create", "client:create"]
    assert {event["actor"] for event in events} == {local_user().name}
    assert rest["next_cursor"] is None
    asked = ("--action", "client:create", "--actor", local_user().name)
    (only,) = parsed(run("audit", "list", *asked, "--json"))["events"]
    assert only["after"]["name"] == "acme"
    assert parsed(run("audit", "list", "--actor", "acme", "--json"))["events"] == []
    table = run("audit", "list", "--limit", "2").stdout
    assert "key:revoke" in table
    assert "--cursor" in table
    assert isinstance(run("audit", "list", "--action", "key:made").exception, InvalidRequestError)


def test_a_broken_log_has_an_exit_code(run: Run, tmp_path: Path) -> None:
    """0 and a sentence for a sound log, 1 and the breaks for one that is not; a kept head is checked too."""
    head = tmp_path / "head.json"
    head.write_text(run("audit", "list", "--head").stdout)
    sound = run("audit", "verify", "--head", str(head))
    assert (sound.exit_code, "is sound: 3 events" in sound.stdout) == (0, True)
    with closing(sqlite3.connect(tmp_path / "data" / DATABASE_FILE)) as connection, connection:
        connection.execute("DELETE FROM audit_events WHERE sequence = 2")
    broken = run("audit", "verify")
    assert (broken.exit_code, "NOT sound" in broken.stdout, "events_missing" in broken.stdout) == (1, True, True)
    told = run("audit", "verify", "--json")
    assert (told.exit_code, json.loads(told.stdout)["sound"]) == (1, False)
    head.write_text(json.dumps({"sequence": 9, "hash": "0" * 64}))
    assert "tail_missing" in run("audit", "verify", "--head", str(head)).stdout


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"sequence": "1", "hash": "x"}', "{"])
def test_a_head_that_is_none_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    """A file without a head: a sentence, not a verdict."""
    (tmp_path / "head.json").write_text(text)
    assert isinstance(run("audit", "verify", "--head", str(tmp_path / "head.json")).exception, CommandError)


def test_an_export_is_whole_lines(run: Run, tmp_path: Path) -> None:
    """To a file and to standard output alike, oldest first, one canonical object a line."""
    assert run("audit", "export", "--out", str(tmp_path / "a.jsonl")).exit_code == 0
    text = (tmp_path / "a.jsonl").read_text()
    assert text == run("audit", "export").stdout
    assert [json.loads(line)["sequence"] for line in text.splitlines()] == [1, 2, 3]


class PartsServer(RemoteBackend):
    """Answers the check of a log in memory in parts of two events."""

    def __init__(self, log: MemoryAuditLog) -> None:
        super().__init__("http://127.0.0.1:1", None)
        self.log = log
        self.asked = 0

    def _json(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        query = dict(query or {})
        self.asked += 1
        kept = [Head(query["sequence"], query["hash"])] if "sequence" in query else []
        after = Head(query["after_sequence"], query["after_hash"]) if "after_sequence" in query else START
        return verification_view(self.log.verify(kept, after, 2))


def test_a_server_is_asked_part_by_part() -> None:
    """The parts' verdicts are added up; a kept head is compared where it stands."""
    log = MemoryAuditLog()
    log.append(*(Change(AuditAction.SERVER_STOP, f"server:s{number}") for number in range(5)))
    server = PartsServer(log)
    found = server.verify_audit({"sequence": 3, "hash": log.events[2].hash})
    assert (found["sound"], found["checked"], found["head"]["sequence"], server.asked) == (True, 5, 5, 3)
    found = server.verify_audit({"sequence": 3, "hash": "0" * 64})
    assert (found["sound"], [problem["code"] for problem in found["problems"]]) == (False, ["head_differs"])
    found = server.verify_audit({"sequence": 9, "hash": "0" * 64})
    assert (found["complete"], [problem["code"] for problem in found["problems"]]) == (True, ["tail_missing"])
