"""One predict request as any server hands it in, and the answer it gets back; no HTTP library, any transport."""

from __future__ import annotations

from typing import Protocol

import msgspec

from modelyard.core.errors import ModelyardError
from modelyard.core.types import Surface


class RequestHead(msgspec.Struct, frozen=True, eq=False):
    """All of a request but its body. Header values are the bytes that came, None where there was none.

    `forwarded` is what proxies say of the address, `subject` what `x-modelyard-subject` says; `idempotency` is the
    Idempotency-Key ("": none).
    Equal and hashed by identity. `lasting` says that the transport hands in this same object for every request whose
    head has the same bytes, so what was worked out for it once may be remembered.
    """

    surface: Surface
    model: str
    version: str | None = None
    key: bytes | None = None
    content_type: bytes | None = None
    content_encoding: bytes | None = None
    header_length: bytes | None = None
    accept_encoding: bytes | None = None
    caller_request_id: bytes | None = None
    subject: str | None = None
    idempotency: str = ""
    forwarded: bytes | None = None
    lasting: bool = False


class RateState(msgspec.Struct, frozen=True, eq=False):
    """What the client may still do; `reset_s` until its whole allowance is back. Requests of one client in one turn of
    the loop share one: it says what is left when their answers leave."""

    limit: int
    remaining: int
    reset_s: float


class Answer(msgspec.Struct, frozen=True):
    """An answer to a predict request. The transport adds what is its own (date, length, connection)."""

    status: int
    body: bytes
    request_id: str
    header_length: int | None = None
    prediction_id: str | None = None
    version: str | None = None
    rate: RateState | None = None
    retry_after_s: float | None = None
    content_encoding: bytes | None = None
    allow: str | None = None
    replayed: bool = False


class Call(Protocol):
    """One predict request, complete."""

    head: RequestHead
    body: bytes

    @property
    def address(self) -> str:
        """Where it came from, as far as the proxies before the server are trusted; "" if nobody knows."""

    @property
    def gone(self) -> bool:
        """Whether the caller has left."""

    def answer(self, answer: Answer) -> None:
        """Takes the answer; called exactly once, on the loop's thread. Never raises."""


class ErrorRenderer(Protocol):
    """How the surface says an error: the status and the body."""

    def __call__(self, error: ModelyardError, request_id: str) -> tuple[int, bytes]:
        """For `{"error", "code", "detail", "request_id"}`."""
