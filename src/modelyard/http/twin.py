"""The predict routes as plain ASGI, over the same spine: for requests that are not in their plain form (percent
encoding, a query, `Expect`), for other servers and for Lambda. Also the door through which every ASGI request goes.

`tests/contract/test_twin.py` compares each answer and each error with the native route's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from modelyard.core.call import Answer, RequestHead
from modelyard.core.errors import DeadlineError, InternalError, MethodError, ModelyardError
from modelyard.http.connection.bounds import body_too_large, inflight_bytes_exceeded, receive_timeout
from modelyard.http.shared import Shared
from modelyard.http.wire import (
    Target,
    answer_fields,
    check_names,
    predict_target,
    presented_key,
    rate_fields,
)
from modelyard.predict import REQUEST_ID

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

log = structlog.get_logger()


class TwinCall:
    """One predict request over ASGI; implements core.call.Call."""

    def __init__(self, head: RequestHead, address: str, body: bytes) -> None:
        self.head = head
        self.address = address
        self.body = body
        self.gone = False
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(self, answer: Answer) -> None:
        """Wakes the request's task; an answer to a caller that left is dropped."""
        if not self.answered.done():
            self.answered.set_result(answer)


class _Body:
    """A body that is being read, counted against the worker's bound until `release`."""

    def __init__(self, shared: Shared) -> None:
        self.parts: list[bytes] = []
        self._size = 0
        self._shared = shared

    def add(self, part: bytes) -> None:
        """Takes a part; TooLargeError, OverloadError."""
        self.parts.append(part)
        self._size += len(part)
        self._shared.inflight_bytes += len(part)
        if self._size > self._shared.settings.max_body_bytes:
            raise body_too_large(self._shared.settings.max_body_bytes, self._size)
        if self._shared.inflight_bytes > self._shared.settings.max_inflight_bytes:
            raise inflight_bytes_exceeded()

    def release(self) -> None:
        """The bytes are not held any more."""
        self._shared.inflight_bytes -= self._size
        self._size = 0


class Door:
    """Every ASGI request of a worker: predict routes here, the rest in `management`.

    Adds `x-request-id` to every answer and RateLimit-* to authenticated ones, turns whatever escapes into our error
    form, and holds the answer to a change until every worker answers by it (`effective`).
    """

    def __init__(self, shared: Shared, management: AsgiApp, effective: Callable[[], Awaitable[None]]) -> None:
        self._shared = shared
        self._predictor = shared.predictor
        self._settings = shared.settings
        self._management = management
        self._effective = effective

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        given = dict(scope["headers"]).get(b"x-request-id")
        good = given is not None and REQUEST_ID.fullmatch(given)
        request_id = given.decode("ascii") if good and given is not None else self._shared.next_id()
        target = predict_target(scope["path"])
        try:
            if target is None:
                await self._manage(scope, receive, send, request_id)
            else:
                await send_answer(send, await self._predict(target, scope, receive))
        except ModelyardError as error:
            await send_answer(send, self._refusal(error, request_id))
        except Exception:
            if target is None:  # _manage has said it
                raise
            log.exception("request.failed", request_id=request_id, path=scope["path"])
            await send_answer(send, self._refusal(_broken(), request_id))

    async def _manage(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = False

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if scope["method"] not in ("GET", "HEAD", "OPTIONS") and message["status"] < 300:
                    await self._effective()
                extra = [(b"x-request-id", request_id.encode("ascii")), *rate_fields(scope["state"].get("rate"))]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            await self._management(scope, receive, send_with_id)
        except ModelyardError:
            raise
        except Exception:
            log.exception("request.failed", request_id=request_id, path=scope["path"])
            if started:
                raise
            raise _broken() from None

    async def _predict(self, target: Target, scope: Scope, receive: Receive) -> Answer:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if scope["method"] != "POST":
            raise MethodError("method_not_allowed", f"`{scope['method']}` is not possible here.", expected=["POST"])
        key = presented_key(headers)
        if target.model:
            check_names(target)
        head = self._shared.head(target, key, dict(headers), scope["query_string"])
        length = dict(headers).get(b"content-length")
        if length is not None and int(length) > self._settings.max_body_bytes:
            raise body_too_large(self._settings.max_body_bytes, int(length))
        if length is None or int(length) > 0:
            self._predictor.authenticate(key, _address(scope))
        body = _Body(self._shared)
        try:
            call = TwinCall(head, _address(scope), await self._read(body, receive))
            self._predictor.predict(call)
            return call.answered.result() if call.answered.done() else await self._wait(call, receive)
        finally:
            body.release()

    async def _wait(self, call: TwinCall, receive: Receive) -> Answer:
        """The answer; meanwhile a caller that leaves is noticed."""
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((call.answered, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not call.answered.done():
                call.gone = True
            return await call.answered
        finally:
            leaving.cancel()

    async def _read(self, body: _Body, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise DeadlineError("receive_timeout", "The caller left before the body was complete.")
                    body.add(message.get("body", b""))
                    if not message.get("more_body", False):
                        return b"".join(body.parts)
        except TimeoutError:
            raise receive_timeout("body", self._settings.body_timeout_s) from None

    def _refusal(self, error: ModelyardError, request_id: str) -> Answer:
        status, body = self._shared.render_error(error, request_id)
        allow = ", ".join(error.detail.get("expected", ())) if isinstance(error, MethodError) else None
        return Answer(status, body, request_id, retry_after_s=error.retry_after_s, allow=allow)


def _broken() -> ModelyardError:
    return InternalError("internal", "Something broke here; the log has it under the request id.")


def _address(scope: Scope) -> str:
    """Where a request came from; edge.proxied has looked behind trusted proxies."""
    client = scope.get("client")
    return str(client[0]) if client else ""


async def send_answer(send: Send, answer: Answer) -> None:
    """Writes an answer as ASGI messages."""
    headers = answer_fields(answer)
    if answer.status in (408, 413):
        # Its body was not read to the end: where the next request begins cannot be trusted.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
