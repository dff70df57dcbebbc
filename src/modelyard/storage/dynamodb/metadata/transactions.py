"""How several items change together: one writer at a time, by a condition on one item, the head.

The head carries all that every change moves: the snapshot version, the last link of the audit chain, the next free
numbers. A change reads the head, reads what it needs, and writes everything in one TransactWriteItems that holds only
if the head is still the one it read; if not, it begins again. So changes are one after the other, whatever the number
of hosts, and what a change read was true when it was written.

A transaction takes a hundred items. What is more than that is written down in the same transaction, under the head's
`pending`; whoever reads the head next, writer or reader, finishes it first. Each item carries the `revision` that
wrote it, so that a process that finishes late never overwrites what came after.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec

from modelyard.audit.chain import START, Head
from modelyard.core.errors import UnavailableError
from modelyard.storage.dynamodb.attributes import Item, Key, key_of, ordered, packed, parts_of, unpacked
from modelyard.storage.dynamodb.refusals import RETRY_AFTER_S, ConditionFailedError
from modelyard.storage.dynamodb.requests import (
    Condition,
    Requests,
    Span,
    check_action,
    delete_action,
    put_action,
)

HEAD: Key = ("head", "head")
_REDO = "redo"
MOST_ITEMS = 90
"""Of one transaction, the head and the conditions beside them; the service takes 100."""
MOST_BYTES = 2 * 1024 * 1024
"""Of one transaction's items; the service takes 4 MB."""

T = TypeVar("T")


class HeadItem(msgspec.Struct, frozen=True):
    """The head. `revision` grows with every change, `version` (what workers poll) with those of keys, models and
    traffic; `slots` clients and `published` versions there have been; `pending` parts of a change are to be
    finished."""

    revision: int = 0
    version: int = 0
    slots: int = 0
    published: int = 0
    sequence: int = 0
    hash: str = START.hash
    pending: int = 0

    @property
    def last(self) -> Head | None:
        """The last event of the audit log."""
        return Head(self.sequence, self.hash) if self.sequence else None


class Transaction:
    """One change: what it reads is as the last writers left it, what it puts is written at its end. Items that it put
    are not read back."""

    def __init__(self, metadata: Metadata, head: HeadItem) -> None:
        self.head = head
        self.metadata = metadata
        self.puts: dict[Key, Item] = {}
        self.deletes: list[Key] = []
        self.others: list[dict[str, Any]] = []
        self.acts: list[Callable[[], None]] = []

    def get(self, pk: str, sk: str) -> Item | None:
        """One item."""
        return self.metadata.get(pk, sk)

    def put(self, pk: str, sk: str, **values: Any) -> None:
        """Writes an item."""
        self.puts[pk, sk] = {"pk": pk, "sk": sk, "revision": self.head.revision + 1, **values}

    def delete(self, pk: str, sk: str) -> None:
        """Removes an item."""
        self.deletes.append((pk, sk))

    def check(self, key: Key, condition: Condition) -> None:
        """ConditionFailedError from the end of the transaction unless this holds then."""
        self.others.append(check_action(self.metadata.table, key, condition))

    def also(self, *actions: dict[str, Any]) -> None:
        """Does this in another table (requests.put_action, update_action) in the same transaction."""
        self.others.extend(actions)

    def move(self, **values: Any) -> None:
        """Changes the head."""
        self.head = msgspec.structs.replace(self.head, **values)

    def bump(self) -> None:
        """Says that this transaction changes keys, models or traffic."""
        self.move(version=self.head.version + 1)

    def after_commit(self, act: Callable[[], None]) -> None:
        """Has `act`, which must not raise, called once the transaction is durable."""
        self.acts.append(act)


class Metadata:
    """The table of metadata. Safe for threads; a forked child may go on with it."""

    def __init__(self, requests: Requests, table: str) -> None:
        self.requests = requests
        self.table = table
        self._turn = threading.Lock()
        self._pid = os.getpid()

    def get(self, pk: str, sk: str) -> Item | None:
        """One item."""
        return self.requests.get(self.table, (pk, sk))

    def get_many(self, keys: Sequence[Key], names: Sequence[str] = ()) -> dict[Key, Item]:
        """Those of the items that are there."""
        return self.requests.get_many(self.table, keys, names)

    def all_of(self, pk: str, limit: int | None = None) -> Iterator[Item]:
        """The items of a partition, by sort key."""
        return self.requests.query_all(self.table, Span(pk), limit=limit)

    def head(self) -> HeadItem:
        """The head, with nothing left to finish."""
        while True:
            head = self._read_head()
            if not head.pending:
                return head
            self._finish(head)

    def version(self) -> int:
        """The snapshot version; one read."""
        return self._read_head().version

    def stable(self, read: Callable[[], T]) -> tuple[int, T]:
        """What `read` finds at one version, and that version: a Query of several pages alone may see half a change."""
        deadline_s = self.deadline_s()
        attempt = 0
        before = self.head()
        while True:
            found = read()
            after = self.head()
            if after.version == before.version:
                return after.version, found
            self.rest(attempt, deadline_s)
            before, attempt = after, attempt + 1

    def change(self, work: Callable[[Transaction], T]) -> T:
        """Has `work` read and put, then writes it all, or nothing. It may be called several times: each time with a
        new transaction, as others were quicker. Nothing is written if it puts nothing, or raises.

        UnavailableError("store_unavailable") after `timeout_s` without a turn; ConditionFailedError if a `check` of
        its own does not hold.
        """
        deadline_s = self.deadline_s()
        with self._own_turn():
            attempt = 0
            while True:
                head = self.head()
                made = Transaction(self, head)
                result = work(made)
                if not (made.puts or made.deletes or made.others) and made.head == head:
                    return result
                try:
                    self._commit(head, made)
                except ConditionFailedError as failed:
                    if 0 not in failed.places:
                        raise
                    self.rest(attempt, deadline_s)
                    attempt += 1
                    continue
                for act in made.acts:
                    act()
                return result

    def _commit(self, before: HeadItem, made: Transaction) -> None:
        revision = before.revision + 1
        now, later = _divided(list(made.puts.values()))
        redo = _parts(later, revision)
        head = msgspec.structs.replace(made.head, revision=revision, pending=len(redo))
        item = {"pk": HEAD[0], "sk": HEAD[1], **msgspec.structs.asdict(head)}
        unchanged = Condition("#revision = :revision", {"revision": before.revision})
        if before.revision == 0:
            unchanged = Condition("attribute_not_exists(#pk)")
        actions = [
            put_action(self.table, item, unchanged),
            *made.others,
            *(put_action(self.table, one) for one in (*now, *redo)),
            *(delete_action(self.table, key) for key in made.deletes),
        ]
        self.requests.transact(actions, str(uuid.uuid4()), self.table)
        if redo:
            self._finish(head)

    def _finish(self, head: HeadItem) -> None:
        """Writes what did not fit into the transaction of this revision, unless somebody else has."""
        mine = Span(_REDO, f"{ordered(head.revision)}#", f"{ordered(head.revision)}#~")
        parts = list(self.requests.query_all(self.table, mine))
        if len(parts) == head.pending:
            older = Condition("attribute_not_exists(#pk) OR #revision < :revision", {"revision": head.revision})
            for item in msgspec.msgpack.decode(unpacked(part["content"] for part in parts)):
                with suppress(ConditionFailedError):
                    self.requests.put(self.table, item, older)
        still = Condition("#revision = :revision", {"revision": head.revision})
        with suppress(ConditionFailedError):
            self.requests.update(self.table, HEAD, "SET #pending = :none", still, none=0)
        self.requests.write_many(self.table, deletes=[key_of(part) for part in parts])

    def _read_head(self) -> HeadItem:
        found = self.requests.get(self.table, HEAD)
        if found is None:
            return HeadItem()
        return HeadItem(**{name: found[name] for name in HeadItem.__struct_fields__})

    def deadline_s(self) -> float:
        """Until when something is tried that is begun now."""
        return self.requests.clock.monotonic() + self.requests.timeout_s

    def rest(self, attempt: int, deadline_s: float) -> None:
        """Rests before the next attempt; UnavailableError("store_unavailable") if the time is over."""
        if self.requests.clock.monotonic() >= deadline_s:
            raise _too_many()
        self.requests.pause(attempt)

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        """The threads of a process wait in line rather than try against each other."""
        if self._pid != os.getpid():
            self._turn, self._pid = threading.Lock(), os.getpid()  # a thread that is not here may have held it
        if not self._turn.acquire(timeout=self.requests.timeout_s):
            raise _too_many()
        try:
            yield
        finally:
            self._turn.release()


def _too_many() -> UnavailableError:
    return UnavailableError("store_unavailable", "Too many changes wait for the database.", retry_after_s=RETRY_AFTER_S)


def _divided(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """What goes into the transaction, and what is finished after it: all or none, so that the parts are few."""
    size = sum(len(value) for item in items for value in item.values() if isinstance(value, str | bytes))
    return (items, []) if len(items) <= MOST_ITEMS and size <= MOST_BYTES else ([], items)


def _parts(items: list[Item], revision: int) -> list[Item]:
    if not items:
        return []
    parts = parts_of(packed(msgspec.msgpack.encode(items)))
    return [
        {"pk": _REDO, "sk": f"{ordered(revision)}#{number:04d}", "content": part} for number, part in enumerate(parts)
    ]
