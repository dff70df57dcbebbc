"""Request heads that the parser has read before (API-6).

A client sends nearly the same head with each request of a connection. What the parser and the field rules once made of
these bytes, at a message's beginning, they would make of them again; so a head is looked up by its bytes first, and
only a new one is parsed. Remembered are complete, usual heads of native predict requests alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from modelyard.core.call import RequestHead
from modelyard.core.types import Surface

if TYPE_CHECKING:
    from modelyard.http.connection.native import NativeCycle

MOST_HEADS = 2048
MOST_HEAD_BYTES = 2048
END = b"\r\n\r\n"


class KnownHead(NamedTuple):
    """`length` bytes of body follow the head. `table` is the routing table without which it would mean another model
    (`/invocations` of the only endpoint), None where the head itself says which."""

    head: RequestHead
    length: int
    table: object | None


class KnownHeads:
    """One worker's; bounded. `find` is the dictionary itself: the protocol looks up with no call in between."""

    def __init__(self) -> None:
        self.find: dict[bytes, KnownHead] = {}

    def learn(self, data: bytes, cycle: NativeCycle, table: object) -> None:
        """Remembers the head of a request that came whole in this segment, alone, and was read without a doubt."""
        end = data.find(END, 0, MOST_HEAD_BYTES) + len(END)
        head = cycle.head
        if (
            cycle.error is not None
            or not (cycle.keep_alive and cycle.started)
            or end < len(END)
            or not data.startswith(b"POST ")
            or cycle.content_length != len(data) - end
            or cycle.body != data[end:]
            or head.caller_request_id is not None  # of one request only, as the next two
            or head.subject is not None
            or head.idempotency
        ):
            return
        if len(self.find) >= MOST_HEADS:
            self.find.clear()
        lasting = msgspec.structs.replace(head, lasting=True)
        said = head.surface is not Surface.INVOCATIONS
        self.find[data[:end]] = KnownHead(lasting, cycle.content_length, None if said else table)
