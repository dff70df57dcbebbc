"""THE SPINE: auth -> limits -> routing -> batching -> runtime -> journal -> answer.

Every predict request of every surface and transport takes this road, and only this one. `Predictor.predict` takes
it up to the batcher; `Predictor.settle` from the finished run to the answers of one turn of the loop: one write to
the spool, then the answers (promise P1).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Protocol

from modelyard.auth.scopes import Scope
from modelyard.auth.table import KeyTable, Principal
from modelyard.batching.batcher import Batcher
from modelyard.codec.compression import compress, decompress
from modelyard.core.call import Answer, Call, ErrorRenderer, RateState
from modelyard.core.errors import (
    DeadlineError,
    InternalError,
    LimitError,
    ModelyardError,
    OverloadError,
    UnavailableError,
)
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.core.types import (
    AnswerContext,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    RawRequest,
    Servable,
    Surface,
    SurfaceCodec,
    Tensors,
)
from modelyard.journal.frame import encode_frame
from modelyard.journal.record import RecordHeader
from modelyard.limits.admission import Permits
from modelyard.limits.ports import RateCounter
from modelyard.routing.table import Route, RoutingTable
from modelyard.telemetry.logs import emit

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
OFF_LOOP_BYTES = 256 * 1024
"""Bodies over this size and all compressed ones are decoded off the loop (hot path contract)."""
CLIENT_GONE = 499
"""Status of a record whose caller left before the answer (nginx's number); never sent."""
NO_REQUEST = DecodedRequest(inputs={}, rows=0)


class Journal(Protocol):
    """Where a turn's records go before its answers leave."""

    def append(self, parts: Sequence[bytes]) -> None:
        """One write; UnavailableError("journal_unavailable"), then nothing of it is kept."""


class Commit(Protocol):
    """When a written turn may be answered: at once (`process`) or after fdatasync (`host`)."""

    def __call__(self, deliver: Callable[[], None]) -> None:
        """Calls `deliver` on the loop's thread once the turn is as durable as promised."""


class Prediction:
    """One request on its way; owned by the loop thread. Implements the batcher's Job."""

    __slots__ = (
        "answer", "at_ns", "call", "codec", "deadline_s", "encoded", "ended_s", "error", "id", "permit", "principal",
        "rate", "request", "request_id", "route", "servable", "settled", "started_s", "status", "submitted_s",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        codec: SurfaceCodec,
        prediction_id: str,
        request_id: str,
        principal: Principal,
        rate: RateState,
        route: Route,
    ) -> None:
        self.call = call
        self.codec = codec
        self.id = prediction_id
        self.request_id = request_id
        self.principal = principal
        self.rate = rate
        self.at_ns = time.time_ns()
        self.submitted_s = time.perf_counter()
        self.started_s = self.ended_s = self.submitted_s
        self.deadline_s = 0.0
        self.route = route
        self.servable: Servable = route.servable
        self.request = NO_REQUEST
        self.permit = False
        self.error: ModelyardError | None = None
        self.encoded: EncodedAnswer
        self.status = 0
        self.settled = False
        self.answer: Answer

    @property
    def over(self) -> bool:
        """Answered already, or the caller left."""
        return self.settled or self.call.gone

    def succeed(self, outputs: Tensors, started_s: float, ended_s: float) -> None:
        """Encodes the answer; on failure the batcher fails this job alone."""
        self.started_s, self.ended_s = started_s, ended_s
        self._encode(outputs)

    def fail(self, error: ModelyardError) -> None:
        """Takes the error as its answer."""
        self.error = error

    def answer_items_only(self) -> None:
        """Answers a predictions request of which no item was good: there is nothing to run."""
        self._encode({})

    def _encode(self, outputs: Tensors) -> None:
        servable = self.servable
        context = AnswerContext(servable.model, servable.version, self.id, servable.signature)
        self.encoded = self.codec.encode(self.request, outputs, context)
        self.status = 200


class Predictor:
    """The stations of one worker, wired. `keys`, `table` and `fresh_s` are replaced whole by the snapshot task;
    a request holds what it was given until it is answered."""

    def __init__(
        self,
        *,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        decoder: Executor,
        counter: RateCounter,
        journal: Journal,
        commit: Commit,
        next_id: Callable[[], str],
        render_error: ErrorRenderer,
        codecs: Mapping[Surface, SurfaceCodec],
        keys: KeyTable,
        table: RoutingTable,
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.table = table
        self.fresh_s = time.monotonic()
        self.in_flight: set[Prediction] = set()
        self.counters: dict[str, int] = {}
        self._loop = loop
        self._decoder = decoder
        self._counter = counter
        self._journal = journal
        self._commit = commit
        self._next_id = next_id
        self._render_error = render_error
        self._codecs = codecs
        self._permits = Permits(settings.limits.max_concurrency)
        self._batcher = Batcher(loop, executor, settings.batching, self.settle)
        self._bounds = CodecBounds(
            settings.codec.max_json_depth, settings.codec.max_json_values, settings.codec.max_items
        )
        self._refuse_stale = settings.snapshot.on_stale == "refuse"
        self._max_age_s = settings.snapshot.max_age_s
        self._max_body_bytes = settings.http.max_body_bytes
        self._timeout_s = settings.http.request_timeout_s

    def predict(self, call: Call) -> None:
        """Takes one request; `call.answer` is called exactly once, now or at the end of a turn. Never raises."""
        prediction_id = self._next_id()
        request_id = _request_id(call, prediction_id)
        principal: Principal | None = None
        rate: RateState | None = None
        try:
            principal = self.authenticate(call.key)
            rate = self.take(principal)
            principal.require(Scope.PREDICT, call.model)
            if self._refuse_stale:
                self._check_fresh()
            route = self.table.route(call.model, call.version, prediction_id)
        except ModelyardError as error:
            self._refuse(call, error, request_id, rate)
            return
        except Exception:
            self._refuse(call, _broken(request_id), request_id, rate)
            return
        prediction = Prediction(call, self._codecs[call.surface], prediction_id, request_id, principal, rate, route)
        prediction.deadline_s = prediction.submitted_s + self._timeout_s
        prediction.permit = self._permits.take()
        self.in_flight.add(prediction)
        if not prediction.permit:
            prediction.error = OverloadError(
                "server_busy", "The server is busy; nothing was done.", retry_after_s=1.0, field="concurrency"
            )
            self._batcher.finish(prediction)
        elif call.content_encoding is None and len(call.body) <= OFF_LOOP_BYTES:
            self._decoded(prediction, self._decode(prediction))
        else:
            done = self._decoder.submit(self._decode, prediction)
            done.add_done_callback(
                lambda future: self._loop.call_soon_threadsafe(self._decoded, prediction, future.result())
            )

    def settle(self, jobs: Sequence[Any]) -> None:
        """Ends jobs: seal each answer, one write, then (as durable as promised) the answers. Never raises."""
        turn: list[Prediction] = [job for job in jobs if not job.settled]
        if not turn:
            return
        parts: list[bytes] = []
        for prediction in turn:
            prediction.settled = True
            if prediction.permit:
                self._permits.release()
            try:
                self._seal(prediction, parts)
            except Exception:
                self._seal_broken(prediction, parts)
        try:
            self._journal.append(parts)
        except Exception as error:
            refusal = error if isinstance(error, ModelyardError) else _broken(turn[0].request_id)
            for prediction in turn:
                prediction.error = refusal
                self._render(prediction)
            self._deliver(turn)
            return
        self._commit(lambda: self._deliver(turn))

    def authenticate(self, key: bytes | None) -> Principal:
        """Who presents this key; AuthenticationError. Also used by every route beside the predict routes."""
        return self.keys.authenticate(key, time.time())

    def expire(self, now_s: float | None = None) -> None:
        """Answers 503 to whoever waits past its deadline (`now_s` by perf_counter); everyone, without `now_s`."""
        late = [p for p in self.in_flight if not p.settled and (now_s is None or p.deadline_s < now_s)]
        for prediction in late:
            prediction.error = (
                UnavailableError("shutting_down", "The server stops; the request was not answered.", retry_after_s=1.0)
                if now_s is None
                else _timeout(self._timeout_s)
            )
        if late:
            self.settle(late)

    def _decode(self, prediction: Prediction) -> DecodedRequest | ModelyardError:
        """The request as tensors; may run in a thread. Never raises."""
        call = prediction.call
        try:
            body = call.body
            if call.content_encoding is not None:
                body = decompress(body, call.content_encoding, self._max_body_bytes)
            raw = RawRequest(body, call.content_type, call.header_length)
            return prediction.codec.decode(raw, prediction.servable.signature, self._bounds)
        except ModelyardError as error:
            return error
        except Exception as error:
            return InternalError("internal", "The request could not be read.", reason=type(error).__name__)

    def _decoded(self, prediction: Prediction, result: DecodedRequest | ModelyardError) -> None:
        if prediction.settled:
            return
        if isinstance(result, ModelyardError):
            prediction.error = result
            self._batcher.finish(prediction)
            return
        prediction.request = result
        if result.inputs:
            self._batcher.submit(prediction)
            return
        try:
            prediction.answer_items_only()
        except Exception:
            prediction.error = _broken(prediction.request_id)
        self._batcher.finish(prediction)

    def take(self, principal: Principal) -> RateState:
        """One request of the client's allowance; LimitError. Also used by every authenticated route."""
        decision = self._counter.take(principal.slot, principal.interval_s, principal.burst)
        if decision.allowed:
            return RateState(decision.limit, decision.remaining, decision.reset_s)
        raise LimitError(
            "rate_limited",
            f"The client `{principal.client}` has used up its rate.",
            retry_after_s=decision.retry_after_s,
            field="rate",
            limit=decision.limit,
            remaining=decision.remaining,
            reset_s=round(decision.reset_s, 3),
        )

    def _check_fresh(self) -> None:
        if time.monotonic() - self.fresh_s > self._max_age_s:
            raise UnavailableError(
                "snapshot_stale", "The server has not seen the database for too long.", retry_after_s=1.0
            )

    def _refuse(self, call: Call, error: ModelyardError, request_id: str, rate: RateState | None) -> None:
        """Answers what never became a prediction: it is counted, not recorded."""
        self.counters[error.code] = self.counters.get(error.code, 0) + 1
        if rate is None and isinstance(error, LimitError):
            rate = RateState(error.detail["limit"], error.detail["remaining"], error.detail["reset_s"])
        status, body = self._render_error(error, request_id)
        call.answer(Answer(status, body, request_id, rate=rate, retry_after_s=error.retry_after_s))

    def _render(self, prediction: Prediction) -> None:
        error = prediction.error
        if error is not None:
            prediction.status, body = self._render_error(error, prediction.request_id)
            prediction.encoded = EncodedAnswer(body)
        body, encoding = prediction.encoded.body, None
        accepted = prediction.call.accept_encoding
        if accepted is not None:
            body, encoding = compress(body, accepted)
        prediction.answer = Answer(
            prediction.status,
            body,
            prediction.request_id,
            prediction.encoded.header_length,
            prediction.id,
            prediction.servable.version,
            prediction.rate,
            error.retry_after_s if error is not None else None,
            encoding,
        )

    def _seal(self, prediction: Prediction, parts: list[bytes]) -> None:
        """Makes the answer and its frame; a caller that left gets a record that says so."""
        call, route, servable, principal = (
            prediction.call, prediction.route, prediction.servable, prediction.principal
        )  # fmt: skip
        gone = call.gone and prediction.error is None
        if gone and prediction.status == 0:
            prediction.encoded = EncodedAnswer(b"")
        self._render(prediction)
        ended = time.perf_counter()
        header_length = prediction.encoded.header_length
        code = "client_gone" if gone else prediction.error.code if prediction.error is not None else ""
        header = RecordHeader(
            prediction.id, prediction.at_ns, prediction.request_id, call.surface, call.content_type or b"",
            call.content_encoding or b"", call.header_length or b"", -1 if header_length is None else header_length,
            principal.key_id, principal.client, route.endpoint, servable.model, servable.version, route.arm,
            servable.digest, servable.redaction, CLIENT_GONE if gone else prediction.status, code,
            len(prediction.request.items) or prediction.request.rows,
            int((prediction.started_s - prediction.submitted_s) * 1e6),
            int((prediction.ended_s - prediction.started_s) * 1e6), int((ended - prediction.submitted_s) * 1e6),
            prediction.request.subject or "",
        )  # fmt: skip
        parts.extend(encode_frame(header, call.body, prediction.encoded.body))

    def _seal_broken(self, prediction: Prediction, parts: list[bytes]) -> None:
        """The answer could not be made or framed: the caller hears that, and the record too if it can be written."""
        prediction.error = _broken(prediction.request_id)
        with suppress(Exception):
            self._seal(prediction, parts)
            return
        prediction.call.accept_encoding = None
        self._render(prediction)

    def _deliver(self, turn: Sequence[Prediction]) -> None:
        for prediction in turn:
            self.in_flight.discard(prediction)
            try:
                prediction.call.answer(prediction.answer)
            except Exception:  # of one connection, which hurts no other
                _broken(prediction.request_id)


def _request_id(call: Call, prediction_id: str) -> str:
    """The caller's id if it is a good one, else the prediction's."""
    given = call.caller_request_id
    if given is not None and REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return prediction_id


def _broken(request_id: str) -> ModelyardError:
    """Our fault, logged with its traceback under the request's id; called while the exception is handled."""
    emit(Event.REQUEST_FAILED, "error", request_id=request_id, exc_info=True)
    return InternalError("internal", "Something broke here; the log has it under the request id.")


def _timeout(timeout_s: float) -> ModelyardError:
    return DeadlineError(
        "request_timeout",
        f"The model did not answer within {timeout_s:g} s.",
        retry_after_s=1.0,
        field="http.request_timeout_s",
    )
