"""uvicorn's httptools protocol with native predict routes, and with the bounds and deadlines that it lacks.

Predict requests in their plain form are answered here (native.py); everything else becomes an ASGI request as in
uvicorn. What must hold on a connection is written in docs/concepts/connections.md and tested in
tests/contract/test_connection.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from modelyard.core.call import RequestHead
from modelyard.core.errors import ModelyardError
from modelyard.core.types import Surface
from modelyard.http.connection.bounds import (
    body_too_large,
    head_bound,
    head_error,
    headers_too_large,
    inflight_bytes_exceeded,
    not_http,
    too_many_chunks,
    too_many_connections,
)
from modelyard.http.connection.deadlines import IDLE, IN_BODY, IN_HEAD, overdue
from modelyard.http.connection.heads import END, MOST_HEAD_BYTES
from modelyard.http.connection.native import NativeCycle, early_refusal
from modelyard.http.shared import Shared
from modelyard.http.wire import answer_bytes, head_without_upgrade


class PredictProtocol(HttpToolsProtocol):
    """One connection. `shared` is set on a subclass made by `bind`."""

    shared: Shared
    cycle: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.head: NativeCycle | RequestResponseCycle | None = None
        self.deaf = False
        self.half_closed = False
        self.stalled_since: float | None = None
        self.lingering = False
        self.phase = IDLE
        self.head_bytes = 0
        self.chunks = 0
        self.since = 0.0
        self.method = b""

    # The transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        transport.set_write_buffer_limits(high=self.shared.settings.write_buffer_bytes)
        if len(self.connections) > self.shared.settings.max_connections:
            self._refuse_connection()
        self.shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.deaf = True
        self.shared.connections.discard(self)
        for cycle in (self.head, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                if isinstance(cycle, NativeCycle) and (cycle.more_body or not cycle.started):
                    cycle.release()  # what runs holds its body until it is answered
        self.pipeline.clear()
        super().connection_lost(exc)
        self.cycle = self.head = None  # a circle: what it holds would wait for the garbage collector

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        if self.phase == IDLE:
            if self._take_whole(data):
                return
            self.head_bytes = 0
            self.since = self.loop.time()
            self._feed_new(data)
            return
        if self.phase == IN_BODY and type(self.cycle) is not NativeCycle:
            self.since = self.loop.time()
        self._feed_bounded(data)

    def _take_whole(self, data: bytes) -> bool:
        """Whether this segment is one whole request with a known head, and its turn has come: then it is on its way."""
        before = self.cycle
        if before is not None and (not before.response_complete or self.pipeline or self.stalled_since is not None):
            return False
        shared = self.shared
        end = data.find(END, 0, MOST_HEAD_BYTES) + 4
        known = shared.heads.find.get(data[:end])
        if known is None or known.length != len(data) - end:
            return False
        if known.table is not None and known.table is not shared.predictor.table:
            return False
        shared.inflight_bytes += known.length
        if shared.inflight_bytes > shared.settings.max_inflight_bytes:
            shared.inflight_bytes -= known.length
            return False
        self.cycle = self.head = cycle = NativeCycle.whole(self, known.head, data[end:])
        shared.predictor.predict(cycle)
        return True

    def _feed_new(self, data: bytes) -> None:
        """The beginning of a message. If it was all of one, and usual, its head will be known the next time."""
        before = self.cycle
        self._feed_bounded(data)
        cycle = self.cycle
        if cycle is not before and type(cycle) is NativeCycle and not self.deaf:
            self.shared.heads.learn(data, cycle, self.shared.predictor.table)

    def _feed_bounded(self, data: bytes) -> None:
        self.head_bytes += len(data)
        self._feed(data)
        if self.phase != IDLE and not self.deaf and self.head_bytes > head_bound(self.shared.settings):
            self._refuse_rest(headers_too_large(self.shared.settings))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser would leave the body to the new protocol; there is none here. Java's HttpClient offers h2c
            # with its first request by default.
            if not self.deaf:
                self.phase = IDLE
                self.parser = httptools.HttpRequestParser(self)
                self._feed(head_without_upgrade(self.method, self.url, self.headers) + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_rest(not_http())

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The caller will send no more: what it is owed is answered, then the connection closes."""
        if self.lingering:
            return None
        if self.phase == IN_BODY and self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
        elif self.phase == IN_BODY:
            return None
        self.deaf = self.half_closed = True
        owed = self.head is not None and not self.head.response_complete
        if owed:
            last = self.pipeline[0][0] if self.pipeline else self.head
            if last is not None:
                last.keep_alive = False
        return owed or None

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stalled_since is not None:
            self.stalled_since = None
            self._next()

    def hang_up(self) -> None:
        """Closes after what was written; nothing more is parsed, what still comes is dropped."""
        self.deaf = True
        self.since = self.loop.time()
        if self.phase != IDLE and self.transport.can_write_eof():
            self.lingering = True
            self.transport.write_eof()
        else:
            self.transport.close()

    # The parser's side

    def on_message_begin(self) -> None:
        if self.deaf:
            return
        self.phase = IN_HEAD
        self.url = b""
        self.headers = []
        self.chunks = 0
        self.expect_100_continue = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase == IN_BODY:  # a trailer: never taken for a field of the head (RFC 9110, 6.5.1)
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        if len(self.headers) <= self.shared.settings.max_headers:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.deaf:
            return
        error = head_error(self.shared.settings, self.url, self.headers, self.head_bytes)
        if error is not None:
            self._refuse_rest(error)
            return
        parser = self.parser
        if parser.should_upgrade():
            self.method = parser.get_method()
            if self.method == b"CONNECT":
                self._refuse_rest(not_http())
            return
        self.phase = IN_BODY
        self.head_bytes = 0
        target = self.shared.targets.native(self.url)
        if target is None or parser.get_method() != b"POST" or self.expect_100_continue:
            self._begin_asgi()
            return
        cycle = NativeCycle(self, parser.get_http_version() != "1.0" and parser.should_keep_alive())
        length = cycle.read_fields(target, self.headers)
        if length is not None:
            cycle.content_length = int(length)
        self._enqueue(cycle)
        error = early_refusal(self.shared, cycle)
        if error is not None:
            self._refuse_cycle(cycle, error)

    def on_body(self, body: bytes) -> None:
        if self.deaf:
            return
        self.head_bytes = 0  # what comes without a body's byte in it is a trailer, or a chunk's extension
        cycle = self.cycle
        if type(cycle) is not NativeCycle:
            super().on_body(body)
            return
        size = len(body)
        cycle.parts.append(body)
        cycle.size += size
        shared = self.shared
        shared.inflight_bytes += size
        if cycle.size > shared.settings.max_body_bytes:
            self._refuse_rest(body_too_large(shared.settings.max_body_bytes, cycle.size))
        elif shared.inflight_bytes > shared.settings.max_inflight_bytes:
            self._refuse_rest(inflight_bytes_exceeded())

    def on_chunk_header(self) -> None:
        """Counts chunks: a million tiny ones cost more than they carry."""
        self.chunks += 1
        if self.chunks > self.shared.settings.max_chunks and not self.deaf:
            self._refuse_rest(too_many_chunks(self.shared.settings.max_chunks))

    def on_message_complete(self) -> None:
        if self.deaf or self.phase != IN_BODY:
            return
        self.phase = IDLE
        cycle = self.cycle
        if not cycle.keep_alive:
            self.deaf = True
        if type(cycle) is NativeCycle:
            cycle.complete()
        else:
            super().on_message_complete()

    # One order

    def _begin_asgi(self) -> None:
        if self._pipeline_full():
            return
        self.scope = {  # type: ignore[typeddict-item]
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        super().on_headers_complete()

    def _enqueue(self, cycle: NativeCycle) -> None:
        if self._pipeline_full():
            return
        before = self.cycle
        self.cycle = cycle
        if before is None or (before.response_complete and self.stalled_since is None):
            self.head = cycle
            cycle.start()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _pipeline_full(self) -> bool:
        """Whether too many wait on this connection; then what was accepted is answered, and the rest is dropped."""
        if len(self.pipeline) < self.shared.settings.max_pipelined:
            return False
        self.deaf = True
        self.pipeline[0][0].keep_alive = False
        return True

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.head = cycle
        if type(cycle) is NativeCycle:
            cycle.start()
        else:
            if self.shared.draining:
                cycle.keep_alive = False
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.lingering or self.transport.is_closing():
            return
        if self.flow.write_paused:
            self.flow.pause_reading()
            self.stalled_since = self.loop.time()
            return
        self._next()

    def _next(self) -> None:
        # Also when the next one waits already: the rest of its body may not have been read yet.
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        if self.half_closed:
            self.hang_up()
            return
        if self.phase == IDLE:
            self.since = self.loop.time()

    # Refusals

    def _refuse_rest(self, error: ModelyardError) -> None:
        """Refuses the message that is being received, in its turn, and closes: its end cannot be trusted."""
        if self.deaf:
            return
        if self.phase == IN_BODY and self.cycle is not None and not self.cycle.response_complete:
            if type(self.cycle) is NativeCycle:
                self._refuse_cycle(self.cycle, error)
            else:
                self._refuse_asgi(self.cycle, error)
            return
        cycle = NativeCycle(self, keep_alive=False)
        cycle.error = error
        if self.phase == IN_HEAD:
            cycle.head = RequestHead(Surface.OIP, "", caller_request_id=dict(self.headers).get(b"x-request-id"))
        self._enqueue(cycle)
        self.deaf = True

    def _refuse_cycle(self, cycle: NativeCycle, error: ModelyardError) -> None:
        self.deaf = True
        cycle.error = error
        cycle.keep_alive = False
        cycle.more_body = False
        cycle.parts = []
        if cycle.started:
            cycle.run()

    def _refuse_asgi(self, cycle: RequestResponseCycle, error: ModelyardError) -> None:
        """An ASGI request whose body went wrong: its application is told that the caller left."""
        self.deaf = True
        answer = answer_bytes(self.shared.refusal(error, None), self.shared.date, close=True)
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            refused = NativeCycle(self, keep_alive=False)
            refused.error = error
            self.pipeline.appendleft((refused, self.app))  # type: ignore[arg-type]
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if not cycle.response_started:
            self.transport.write(answer)
        self.hang_up()

    def _refuse_connection(self) -> None:
        self.transport.write(answer_bytes(self.shared.refusal(too_many_connections(), None), self.shared.date, True))
        self.hang_up()

    # Deadlines: one sweep for all connections, not a timer each

    def sweep(self, now: float) -> None:
        """Called about once a second: closes what waits too long for the caller."""
        late = overdue(self, now)
        if late is not None:
            self._refuse_rest(late)

    @property
    def idle(self) -> bool:
        """Whether nothing is being received and nothing is owed."""
        return self.phase == IDLE and (self.cycle is None or self.cycle.response_complete)


def bind(shared: Shared) -> type[PredictProtocol]:
    """The protocol class for one worker."""
    return type("WorkerProtocol", (PredictProtocol,), {"shared": shared})
