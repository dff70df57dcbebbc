"""A predict request answered inside uvicorn's protocol: no ASGI, no task. It stands where uvicorn keeps its own
request cycle, so that order, pipelining and keep-alive hold (docs/decisions/0003-answer-inside-uvicorn.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.core.call import Answer, RequestHead
from modelyard.core.errors import ModelyardError
from modelyard.core.types import Surface
from modelyard.http.connection.bounds import body_too_large
from modelyard.http.edge.proxied import FORWARDED
from modelyard.http.wire import Target, answer_bytes, presented_key
from modelyard.predict import OFF_LOOP_BYTES

if TYPE_CHECKING:
    from modelyard.http.connection.protocol import PredictProtocol
    from modelyard.http.shared import Shared


class NoEvent:
    """In place of the asyncio.Event that uvicorn sets on a cycle: nobody waits for a native one."""

    def set(self) -> None:
        """Does nothing."""


NO_EVENT = NoEvent()


NO_HEAD = RequestHead(Surface.OIP, "")
"""Of a request that is refused before its head was read."""


class NativeCycle:
    """One native request, with the attributes that uvicorn's protocol expects of a cycle, and of core.call.Call.

    `started` once it is at the head of its connection; all state of the request lives here. `content_length` is -1
    where there was none. What most requests never change is set on the class.
    """

    head: RequestHead = NO_HEAD
    body = b""
    content_length = -1
    disconnected = False
    error: ModelyardError | None = None
    keep_alive = True
    message_event = NO_EVENT
    more_body = True
    response_complete = False
    size = 0
    started = False

    def __init__(self, protocol: PredictProtocol, keep_alive: bool) -> None:
        self.protocol = protocol
        self.keep_alive = keep_alive
        self.parts: list[bytes] = []

    @classmethod
    def whole(cls, protocol: PredictProtocol, head: RequestHead, body: bytes) -> NativeCycle:
        """A request that came in one piece, with a head that is known, at the head of its connection."""
        cycle = cls.__new__(cls)
        cycle.protocol = protocol
        cycle.head = head
        cycle.body = body
        cycle.size = len(body)
        cycle.more_body = False
        cycle.started = True
        return cycle

    def read_fields(self, target: Target, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """Takes what the spine needs from the header fields; returns Content-Length's text."""
        fields = dict(headers)
        key: bytes | None = None
        try:
            key = presented_key(headers)
            self.head = self.protocol.shared.head(target, key, fields)
        except ModelyardError as error:
            self.error = error
            self.head = RequestHead(target.surface, target.model, caller_request_id=fields.get(b"x-request-id"))
        return fields.get(b"content-length")

    @property
    def address(self) -> str:
        """Where it came from."""
        forwarded = self.head.forwarded
        peer = self.protocol.client
        fields = () if forwarded is None else ((FORWARDED, forwarded),)
        return "" if peer is None else self.protocol.shared.proxies.address(peer[0], fields)

    @property
    def gone(self) -> bool:
        """Whether the caller has left."""
        return self.disconnected or self.protocol.transport.is_closing()

    def start(self) -> None:
        """It is this request's turn on the connection."""
        self.started = True
        if self.error is not None or not self.more_body:
            self.run()

    def run(self) -> None:
        """The body is complete, or the request is refused without it."""
        shared = self.protocol.shared
        if self.error is not None:
            self.answer(shared.refusal(self.error, self.head.caller_request_id))
        else:
            shared.predictor.predict(self)

    def complete(self) -> None:
        """All of the body has come."""
        self.more_body = False
        parts = self.parts
        self.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self.parts = []
        if self.started:
            self.run()

    def answer(self, answer: Answer) -> None:
        """Writes the answer and lets the next request of the connection start."""
        if self.response_complete:
            return
        self.response_complete = True
        self.release()
        self.body = b""  # the connection remembers its last request; the record of it is written
        protocol = self.protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        close = not self.keep_alive or protocol.shared.draining
        protocol.transport.write(answer_bytes(answer, protocol.shared.date, close))
        if close:
            protocol.hang_up()
        protocol.on_response_complete()

    def release(self) -> None:
        """Gives the body's bytes back to the worker's bound; a second call does nothing."""
        self.protocol.shared.inflight_bytes -= self.size
        self.size = 0


def early_refusal(shared: Shared, cycle: NativeCycle) -> ModelyardError | None:
    """Refuses early what would be refused later: too long a body, or a long one without a good key."""
    size = cycle.content_length
    if size > shared.settings.max_body_bytes:
        return body_too_large(shared.settings.max_body_bytes, size)
    if size > OFF_LOOP_BYTES and cycle.error is None:
        try:
            shared.predictor.authenticate(cycle.head.key, cycle.address)
        except ModelyardError as error:
            return error
    return None
