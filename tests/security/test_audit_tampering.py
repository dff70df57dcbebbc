"""S18: whatever is done to the audit log's rows, `verify` finds it. Each trick on a real SQLite file, by SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelyard.audit.acting import acting
from modelyard.audit.chain import Head, event_hash
from modelyard.audit.event import Actor
from modelyard.audit.ports import AuditFilter
from modelyard.auth.keys import KeyIssuer
from modelyard.core.clock import SystemClock
from modelyard.core.settings import Settings
from modelyard.storage.audit_row import COLUMNS, to_event, to_row
from modelyard.storage.sql.open import AUDIT_HEAD_FILE, DATABASE_FILE, open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import version

EVENTS = 8
Trick = Callable[[sqlite3.Connection, Path], object]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder whose log has eight events."""
    stores = open_stores(Settings(), tmp_path / "data")
    issuer = KeyIssuer(stores.keys, SystemClock())
    with acting(Actor("client:ops", "k1", "192.0.2.7", "req-1")):
        issued = issuer.create("acme")
        issuer.revoke(issued.key.id)
        for name in ("1", "2", "3"):
            stores.registry.add_version(version("tree", name, name.encode()))
        for name in ("2", "3"):
            stores.endpoints.set_traffic("tree", ((name, 100),))
    assert stores.audit.verify().checked == EVENTS
    stores.close()
    return tmp_path / "data"


@pytest.fixture
def stores(data: Path) -> Iterator[Stores]:
    """The stores over it."""
    opened = open_stores(Settings(), data)
    yield opened
    opened.close()


def sql(*statements: str) -> Trick:
    """A trick in SQL."""

    def play(connection: sqlite3.Connection, _data: Path) -> None:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement

    return play


def forge(connection: sqlite3.Connection, data: Path, first: int = 4) -> None:
    """Changes an event and computes all later hashes anew, as somebody who knows the rule and the database would."""
    rows = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM audit_events WHERE sequence >= ?", (first,)).fetchall()
    previous = connection.execute("SELECT hash FROM audit_events WHERE sequence = ?", (first - 1,)).fetchone()[0]
    for row in rows:
        stored = to_row(to_event(row)) | {"actor": "client:somebody-else", "previous": previous}
        stored["hash"] = previous = event_hash(to_event(tuple(stored[name] for name in COLUMNS)))
        settings = ", ".join(f"{name} = :{name}" for name in COLUMNS)
        connection.execute(f"UPDATE audit_events SET {settings} WHERE sequence = :sequence", stored)


def behead(connection: sqlite3.Connection, data: Path) -> None:
    (data / AUDIT_HEAD_FILE).unlink()


def scribble(connection: sqlite3.Connection, data: Path) -> None:
    (data / AUDIT_HEAD_FILE).write_bytes(b"\xff" * 128)


TRICKS: dict[str, tuple[Trick, str]] = {
    "delete the first": (sql("DELETE FROM audit_events WHERE sequence = 1"), "events_missing"),
    "delete one": (sql("DELETE FROM audit_events WHERE sequence = 4"), "events_missing"),
    "delete and renumber": (
        sql(
            "DELETE FROM audit_events WHERE sequence = 4",
            "UPDATE audit_events SET sequence = sequence - 1 WHERE sequence > 4",
        ),
        "link_broken",
    ),
    "delete all": (sql("DELETE FROM audit_events"), "tail_missing"),
    "truncate": (sql("DELETE FROM audit_events WHERE sequence > 5"), "tail_missing"),
    "truncate the last": (sql(f"DELETE FROM audit_events WHERE sequence = {EVENTS}"), "tail_missing"),
    "swap": (
        sql(
            "UPDATE audit_events SET sequence = -1 WHERE sequence = 3",
            "UPDATE audit_events SET sequence = 3 WHERE sequence = 4",
            "UPDATE audit_events SET sequence = 4 WHERE sequence = -1",
        ),
        "event_changed",
    ),
    "insert before all": (
        sql("INSERT INTO audit_events SELECT 0, at, actor, key_id, action, subject, before, after, address, request_id,"
            " previous, 'f' FROM audit_events WHERE sequence = 1"),
        "events_missing",
    ),
    "insert a copy at the end": (
        sql(f"INSERT INTO audit_events SELECT {EVENTS + 1}, at, actor, key_id, action, subject, before, after, address,"
            f" request_id, hash, 'f' FROM audit_events WHERE sequence = {EVENTS}"),
        "event_changed",
    ),
    "rewrite with right hashes": (forge, "head_differs"),
    "remove the head file": (behead, "head_missing"),
    "damage the head file": (scribble, "head_unreadable"),
}  # fmt: skip


def verdict(stores: Stores) -> list[str]:
    found = stores.audit.verify()
    assert found.sound is not bool(found.problems)
    return [problem.code for problem in found.problems]


def play(data: Path, trick: Trick) -> None:
    with closing(sqlite3.connect(data / DATABASE_FILE, timeout=30)) as connection, connection:
        trick(connection, data)


@pytest.mark.parametrize("name", TRICKS)
def test_each_trick_is_found(data: Path, stores: Stores, name: str) -> None:
    """Deletion, change, reorder, insertion, truncation, a rewritten chain, a lost head: found and named."""
    assert verdict(stores) == []
    trick, code = TRICKS[name]
    play(data, trick)
    assert code in verdict(stores)


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "sequence"])
@pytest.mark.parametrize("value", ["'x'", "X'ff00'", "7", "NULL"])
def test_each_column_is_covered(data: Path, stores: Stores, column: str, value: str) -> None:
    """Every column of a row counts, whatever is written into it; the log can still be read and exported."""
    if value == "NULL" and column not in ("before", "after"):
        value = "''"
    play(data, sql(f"UPDATE audit_events SET {column} = {value} WHERE sequence = 7"))
    assert {"event_changed", "link_broken"} & set(verdict(stores))
    assert len(stores.audit.page(AuditFilter(), 100, None).events) >= 1
    assert sum(map(len, stores.audit.export(AuditFilter(), 3))) == EVENTS


def test_a_cut_log_that_grows_again_stays_broken(data: Path, stores: Stores) -> None:
    """Whoever cuts the end off and lets the program write on does not get a sound log: the kept head stays the only
    witness, however many events follow."""
    play(data, sql("DELETE FROM audit_events WHERE sequence > 5"))
    for number in range(6):
        stores.keys.ensure_client(f"later{number}", None, None, None)
        assert set(verdict(stores)) & {"tail_missing", "head_differs"}
    assert json.loads((data / AUDIT_HEAD_FILE).read_bytes())["sequence"] == EVENTS


def test_a_head_file_that_was_removed_leaves_a_trace(data: Path, stores: Stores) -> None:
    """It is made again with the next change, and the log says so in an event of its own."""
    play(data, behead)
    stores.keys.ensure_client("later", None, None, None)
    assert verdict(stores) == []
    anchored = stores.audit.page(AuditFilter(action="audit:anchor"), 10, None).events
    assert [(event.sequence, event.after["sequence"]) for event in anchored] == [(EVENTS + 1, EVENTS)]


def test_a_head_kept_elsewhere_is_stronger_than_both(data: Path, stores: Stores) -> None:
    """Who rewrites database and head file alike is found by a head that somebody else kept."""
    kept = stores.audit.head()
    assert kept is not None

    def rewrite(connection: sqlite3.Connection, data: Path) -> None:
        forge(connection, data)
        behead(connection, data)

    play(data, rewrite)
    stores.keys.ensure_client("later", None, None, None)
    assert verdict(stores) == []  # the documented limit
    assert [problem.code for problem in stores.audit.verify([kept]).problems] == ["head_differs"]
    assert stores.audit.verify([Head(999, "0" * 64)]).problems[0].code == "tail_missing"


def test_no_secret_is_in_the_log(data: Path, stores: Stores) -> None:
    """Neither a key's text nor its hash is in any event (S4)."""
    issued = KeyIssuer(stores.keys, SystemClock()).create("canary")
    text = issued.text.get_secret_value()
    rows = json.dumps([event.view() for events in stores.audit.export(AuditFilter(), 100) for event in events])
    assert issued.key.id in rows
    for secret in (text, text.split("_")[2], issued.key.secret_hash.hex()):
        assert secret not in rows
