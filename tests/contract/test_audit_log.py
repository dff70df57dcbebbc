"""The promises of audit.ports.AuditLog, and that every store's change and its event are one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.audit.acting import acting, local_user
from modelyard.audit.chain import START, Head
from modelyard.audit.event import Actor, Change
from modelyard.audit.ports import AuditFilter
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import InvalidRequestError, ModelyardError
from modelyard.core.settings import Settings
from modelyard.storage.sql.open import AUDIT_HEAD_FILE, open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, key, version

OPS = Actor("client:ops", "k9", "192.0.2.7", "req-1")


def said(stores: Stores, **wanted: Any) -> list[tuple[str, str]]:
    """Action and subject of the events that match, in the order of the chain."""
    return [(e.action, e.subject) for events in stores.audit.export(AuditFilter(**wanted), 100) for e in events]


def change(number: int) -> Change:
    return Change(AuditAction.SETTINGS_CHANGE, f"server:s{number}", {"n": number}, {"n": number + 1})


def test_every_change_of_a_store_leaves_one_event(stores: Stores) -> None:
    """Client, its limits, key, revocation, version and traffic: who, what, before, after; what changes nothing leaves
    nothing."""
    with acting(OPS):
        client = stores.keys.ensure_client("acme", 5, 1.0, 5)
        stores.keys.ensure_client("acme", None, None, None)
        stores.keys.ensure_client("acme", 9, None, None)
        stores.keys.add(key(client.id, "k1"))
        stores.keys.revoke("k1", 5.0)
        stores.keys.revoke("k1", 6.0)
        for name in ("1", "2", "2"):
            stores.registry.add_version(version("tree", name, name.encode()))
        stores.endpoints.set_traffic("tree", (("1", 90), ("2", 10)))
    assert said(stores) == [
        ("client:create", "client:acme"),
        ("client:change", "client:acme"),
        ("key:create", "key:k1"),
        ("key:revoke", "key:k1"),
        ("version:publish", "version:tree/1"),
        ("version:publish", "version:tree/2"),
        ("traffic:set", "endpoint:tree"),
    ]
    events = stores.audit.page(AuditFilter(), 100, None).events
    assert {(e.actor, e.key_id, e.address, e.request_id) for e in events} == {
        ("client:ops", "k9", "192.0.2.7", "req-1")
    }
    traffic, _second, first, revoked, issued, *_client = events
    assert (traffic.before["weights"], traffic.after["weights"]) == ({"1": 100}, {"1": 90, "2": 10})
    assert (first.before, first.after["endpoint_made"], len(first.after["digest"])) == (None, True, 64)
    assert (revoked.before["revoked_at"], revoked.after["revoked_at"]) == (None, "1970-01-01T00:00:05.000000Z")
    assert "secret_hash" not in issued.after
    assert stores.audit.verify().sound


@pytest.mark.parametrize(
    "refused",
    [
        lambda stores: stores.keys.revoke("none", 1.0),
        lambda stores: stores.keys.add(key("c-none", "k1")),
        lambda stores: stores.endpoints.set_traffic("tree", (("9", 100),)),
        lambda stores: stores.registry.add_version(version("tree", "1", b"other")),
    ],
)
def test_a_refused_change_leaves_no_event(stores: Stores, refused: Callable[[Stores], Any]) -> None:
    """What did not happen is not written down."""
    stores.registry.add_version(version("tree", "1"))
    before = said(stores)
    with pytest.raises(ModelyardError):
        refused(stores)
    assert said(stores) == before


def test_without_a_caller_it_is_the_local_user(stores: Stores) -> None:
    """The command line works on the stores directly."""
    stores.keys.ensure_client("acme", None, None, None)
    (event,) = stores.audit.page(AuditFilter(), 10, None).events
    assert (event.actor, event.key_id, event.address) == (local_user().name, "", "")


def test_pages_go_newest_first_and_stay_when_events_come(stores: Stores) -> None:
    """Each event once, whatever is appended between two pages; the last page says so."""
    for number in range(7):
        stores.audit.append(change(number))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = stores.audit.page(AuditFilter(), 3, cursor)
        seen += [event.sequence for event in page.events]
        cursor = page.cursor
        stores.audit.append(change(99))
        if cursor is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


HOSTILE = ["", "x", "1", "1-", "-1-2", "1-2-3", "1" * 400, "٣-٣", "1-2\n", "1-99999999999999999999"]


@pytest.mark.parametrize("cursor", HOSTILE)
def test_a_hostile_cursor_is_refused(stores: Stores, cursor: str) -> None:
    """cursor_invalid, never another error."""
    with pytest.raises(InvalidRequestError) as caught:
        stores.audit.page(AuditFilter(), 10, cursor)
    assert caught.value.code == "cursor_invalid"


def test_filters_select_alike_in_pages_and_exports(stores: Stores) -> None:
    """Action, subject and actor exactly; all together; an unknown one matches nothing."""
    with acting(OPS):
        stores.audit.append(change(1), change(2))
    stores.audit.append(change(1), Change(AuditAction.SERVER_STOP, "server:s1"))
    for wanted, count in (
        ({}, 4),
        ({"action": "settings:change"}, 3),
        ({"subject": "server:s1"}, 3),
        ({"actor": "client:ops"}, 2),
        ({"action": "settings:change", "subject": "server:s1", "actor": "client:ops"}, 1),
        ({"actor": "client:op"}, 0),
        ({"subject": "server:%"}, 0),
        ({"since": 4e9}, 0),
        ({"until": 4e9, "since": 0.0}, 4),
    ):
        assert len(said(stores, **wanted)) == count, wanted
        page = stores.audit.page(AuditFilter(**wanted), 100, None)
        assert [(e.action, e.subject) for e in reversed(page.events)] == said(stores, **wanted)


def test_several_changes_are_one_append(stores: Stores) -> None:
    """They follow each other; none is no event."""
    made = stores.audit.append(change(1), change(2), change(3))
    assert [event.sequence for event in made] == [1, 2, 3]
    assert [event.previous for event in made[1:]] == [event.hash for event in made[:-1]]
    assert stores.audit.append() == ()
    head = stores.audit.head()
    assert head is not None
    assert (head.sequence, head.hash) == (3, made[-1].hash)


def test_a_check_goes_on_where_it_ended(stores: Stores) -> None:
    """Seven events in parts of three: complete with the third, all of them read once; a wrong place is noticed."""
    for number in range(7):
        stores.audit.append(change(number))
    after, seen, complete = START, [], False
    while not complete:
        found = stores.audit.verify((), after, 3)
        assert found.sound
        assert found.head is not None
        after, complete = found.head, found.complete
        seen.append(found.checked)
    assert seen == [3, 3, 1]
    assert not stores.audit.verify((), Head(3, "0" * 64)).sound
    assert stores.audit.verify((), START, 7).complete


def test_an_empty_log_is_sound(stores: Stores) -> None:
    """No head, no event, no problem."""
    found = stores.audit.verify()
    assert (found.sound, found.checked, found.head) == (True, 0, None)
    assert stores.audit.head() is None


def test_time_is_the_clock_and_sequence_is_the_order(tmp_path: Path) -> None:
    """A clock that jumps back a day changes stamps alone: the chain goes on, pages go by time (promise P10)."""
    clock = FakeClock()
    stores = open_stores(Settings(), tmp_path / "data", clock)
    stores.audit.append(change(1))
    clock.jump_to(clock.now() - 86_400)
    stores.audit.append(change(2))
    clock.jump_to(clock.now() + 30 * 365 * 86_400)
    stores.audit.append(change(3))
    assert [subject for _, subject in said(stores)] == ["server:s1", "server:s2", "server:s3"]
    assert [e.sequence for e in stores.audit.page(AuditFilter(), 9, None).events] == [3, 1, 2]
    assert said(stores, since=1_700_000_000.0, until=1_700_000_001.0) == [("settings:change", "server:s1")]
    assert stores.audit.verify().sound
    stores.close()


def _work(stores: Stores, number: int) -> int:
    for turn in range(15):
        stores.keys.ensure_client(f"c{number}-{turn}", None, None, None)
        stores.audit.append(change(turn))
    return number


def test_processes_write_one_chain(processes: Callable[..., list[Any]], data: Path) -> None:
    """Three processes that change and append at once: one chain without a gap or a fork, and the head file at its
    end."""
    assert processes(3, _work) == [0, 1, 2]
    stores = open_stores(Settings(), data)
    found = stores.audit.verify()
    assert (found.sound, found.checked) == (True, 90)
    assert len(said(stores, action="client:create")) == 45
    stores.close()
    assert b'"sequence":90}' in (data / AUDIT_HEAD_FILE).read_bytes()
    assert (data / AUDIT_HEAD_FILE).stat().st_mode & 0o777 == 0o600


CHANGES: dict[str, Callable[[Stores], Any]] = {
    "key": lambda stores: stores.keys.add(key(stores.keys.snapshot().clients[0].id, "k2")),
    "revocation": lambda stores: stores.keys.revoke("k1", 5.0),
    "client": lambda stores: stores.keys.ensure_client("b", 1, 1.0, 1),
    "limits": lambda stores: stores.keys.ensure_client("a", 77, None, None),
    "version": lambda stores: stores.registry.add_version(version("tree", "3", b"3")),
    "traffic": lambda stores: stores.endpoints.set_traffic("tree", (("2", 100),)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_and_its_event_are_there_together_or_not_at_all(
    data: Path, sweep: Callable[..., int], name: str
) -> None:
    """A process that fails or dies at any statement of a change, the event's included, leaves neither of them; the
    chain verifies after each (I8)."""
    stores = open_stores(Settings(), data)
    stores.keys.add(key(stores.keys.ensure_client("a", None, None, None).id))
    for number in ("1", "2"):
        stores.registry.add_version(version("tree", number, number.encode()))
    stores.close()

    def view(stores: Stores) -> Any:
        assert stores.audit.verify().sound
        keys = stores.keys.snapshot()
        state = keys.clients, keys.keys, stores.registry.versions(), stores.endpoints.endpoints()
        return state, said(stores)

    assert sweep(CHANGES[name], view) >= 4


def test_a_head_that_cannot_be_kept_does_not_stop_changes(data: Path) -> None:
    """The change is made, the log says what happened, and a check finds what is missing."""
    (data / AUDIT_HEAD_FILE).mkdir()
    stores = open_stores(Settings(), data)
    stores.keys.ensure_client("a", None, None, None)
    assert len(said(stores)) == 1
    assert [problem.code for problem in stores.audit.verify().problems] == ["head_unreadable"]
    stores.close()
