"""A predict request answered inside uvicorn's protocol: no ASGI, no task. It stands where uvicorn keeps its own
request cycle, so that order, pipelining and keep-alive hold (docs/decisions/0003-answer-inside-uvicorn.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.core.call import Answer
from modelyard.core.errors import InvalidRequestError, ModelyardError
from modelyard.http.wire import Target, answer_bytes, presented_key

if TYPE_CHECKING:
    from modelyard.http.protocol import PredictProtocol


class NoEvent:
    """In place of the asyncio.Event that uvicorn sets on a cycle: nobody waits for a native one."""

    def set(self) -> None:
        """Does nothing."""


NO_EVENT = NoEvent()


class NativeCycle:
    """One native request, with the attributes that uvicorn's protocol expects of a cycle, and of core.call.Call.

    `started` once it is at the head of its connection; all state of the request lives here.
    """

    __slots__ = (
        "accept_encoding", "body", "caller_request_id", "content_encoding", "content_type", "disconnected", "error",
        "header_length", "keep_alive", "key", "message_event", "model", "more_body", "parts", "protocol",
        "response_complete", "size", "started", "surface", "version",
    )  # fmt: skip

    def __init__(self, protocol: PredictProtocol, target: Target | None, keep_alive: bool) -> None:
        self.protocol = protocol
        if target is not None:
            self.surface = target.surface
            self.model = target.model
            self.version = target.version
        self.keep_alive = keep_alive
        self.body = b""
        self.parts: list[bytes] = []
        self.size = 0
        self.more_body = True
        self.response_complete = self.disconnected = self.started = False
        self.message_event = NO_EVENT
        self.error: ModelyardError | None = None
        self.key: bytes | None = None
        self.caller_request_id: bytes | None = None

    def read_fields(self, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """Takes what the spine needs from the header fields; returns Content-Length's text."""
        fields = dict(headers)
        get = fields.get
        if len(fields) != len(headers) or b"authorization" in fields:
            try:
                self.key = presented_key(headers)
            except InvalidRequestError as error:
                self.error = error
        else:
            self.key = get(b"x-api-key")
        self.content_type = get(b"content-type")
        self.content_encoding = get(b"content-encoding")
        self.header_length = get(b"inference-header-content-length")
        self.accept_encoding = get(b"accept-encoding")
        self.caller_request_id = get(b"x-request-id")
        if not self.model and self.error is None:
            self._find_model(fields)
        return get(b"content-length")

    def _find_model(self, fields: dict[bytes, bytes]) -> None:
        try:
            self.model = self.protocol.shared.invoked(fields, b"", self.key)
        except ModelyardError as error:
            self.error = error

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
            self.answer(shared.refusal(self.error, self.caller_request_id))
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
