"""The spine: takes all requests of one turn of the loop from their arrival to their answers.

`Predictor.predict` lets a request wait for the end of the turn; then `_admit` takes it up to the batcher, and `settle`
from the finished run to the answers: one write to the spool, then the answers (promise P1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from modelyard.auth.table import KeyTable, Principal
from modelyard.batching.batcher import Batcher
from modelyard.core.call import Answer, Call, ErrorRenderer, RateState
from modelyard.core.errors import AuthenticationError, InternalError, ModelyardError, UnavailableError
from modelyard.core.settings import Settings
from modelyard.core.types import CodecBounds, DecodedRequest, Surface, SurfaceCodec
from modelyard.limits.admission import Permits
from modelyard.limits.clients import ClientLimits
from modelyard.limits.failures import FailedAttempts
from modelyard.limits.ports import RateCounter
from modelyard.predict.allowance import Grant, busy, grant, own_bounds, take_one, told
from modelyard.predict.decode import Decoder
from modelyard.predict.ports import Commit, Journal, NoteRefused
from modelyard.predict.prediction import (
    Prediction,
    answer_together,
    broken,
    request_id_of,
    stopping,
    timed_out,
)
from modelyard.predict.replay import Replays
from modelyard.predict.road import Road, Roads, is_read_apart, split_route
from modelyard.predict.sealing import render, seal, seal_broken
from modelyard.routing.table import Route, RoutingTable

REFUSED_AFTER_S = 0.005
"""A turn that cannot be recorded is refused after this pause. Callers that try again at once would else keep the core
busy with refusals, and the drain, which alone can end this, gets too little of it."""


class Predictor:
    """The stations of one worker, wired. `keys` and `table` are replaced whole by the snapshot task, `fresh_s` says
    when that was; a request holds what it was given until it is answered. `note` hears of each turn answered.
    `used` gathers the ids of keys that were granted something, until somebody takes the set."""

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
        note: Callable[[Sequence[Prediction]], None] | None = None,
        replays: Replays | None = None,
        clients: ClientLimits | None = None,
        attempts: FailedAttempts | None = None,
        refused: NoteRefused | None = None,
    ) -> None:
        self.settings = settings
        self.fresh_s = time.monotonic()
        self.in_flight: set[Prediction] = set()
        self.counters: dict[str, int] = {}
        self._roads = Roads(keys, table, codecs)
        self._arrived: list[Call] = []
        self._loop = loop
        self._decoder = decoder
        self._counter = counter
        self._journal = journal
        self._commit = commit
        self._next_id = next_id
        self._new: Callable[..., Prediction] = Prediction
        self.used: set[str] = set()
        self._note = note
        self._replays = replays
        self.clients = clients
        self._attempts = attempts
        self._refused = refused
        self._render_error = render_error
        self._permits = Permits(settings.limits.max_concurrency)
        self._batcher = Batcher(loop, executor, settings.batching, self.settle, answer_together)
        codec = settings.codec
        bounds = CodecBounds(codec.max_json_depth, codec.max_json_values, codec.max_items)
        self._read = Decoder(bounds, settings.http.max_body_bytes)
        self._refuse_stale = settings.snapshot.on_stale == "refuse"
        self._max_age_s = settings.snapshot.max_age_s
        self._timeout_s = settings.http.request_timeout_s

    @property
    def keys(self) -> KeyTable:
        """The keys that callers are checked against."""
        return self._roads.keys

    @keys.setter
    def keys(self, keys: KeyTable) -> None:
        self._roads.renew(keys=keys)

    @property
    def table(self) -> RoutingTable:
        """The table that requests are routed by."""
        return self._roads.table

    @table.setter
    def table(self, table: RoutingTable) -> None:
        self._roads.renew(table=table)

    def predict(self, call: Call) -> None:
        """Takes one request; `call.answer` is called exactly once, at the end of a turn. Never raises."""
        self._arrived.append(call)
        if len(self._arrived) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._batcher.hold()
        try:
            self._admit(arrived)
        finally:
            self._batcher.turn()

    def settle(self, jobs: Sequence[Any]) -> None:
        """Ends jobs: seal each answer, one write, then (as durable as promised) the answers. Never raises."""
        turn: list[Prediction] = [job for job in jobs if not job.settled]
        if not turn:
            return
        parts: list[bytes] = []
        now_s = time.perf_counter()
        for prediction in turn:
            prediction.settled = True
            if prediction.permit:
                self._permits.release()
            if prediction.client_permit and self.clients is not None:
                self.clients.release(prediction.road.principal.slot)
            try:
                seal(prediction, parts, now_s, self._render_error)
            except Exception:
                seal_broken(prediction, parts, now_s, self._render_error)
        try:
            self._journal.append(parts)
        except Exception as error:
            self._unrecorded(turn, error)
            return
        self._commit(lambda: self._deliver(turn), lambda error: self._unrecorded(turn, error))

    def _unrecorded(self, turn: Sequence[Prediction], error: Exception) -> None:
        refusal = error if isinstance(error, ModelyardError) else broken(turn[0].request_id)
        for prediction in turn:
            prediction.error = refusal
            render(prediction, self._render_error)
        self._loop.call_later(REFUSED_AFTER_S if refusal is error else 0.0, self._deliver, turn)

    def authenticate(self, key: bytes | None, address: str = "") -> Principal:
        """Who presents this key; AuthenticationError. Also used by every route beside the predict routes."""
        try:
            return self._roads.keys.authenticate(key, time.time())
        except AuthenticationError as error:
            raise self._guessed(error, address) from None

    def _guessed(self, error: AuthenticationError, address: str) -> AuthenticationError:
        """What a caller without a good key hears; past so many tries from its address, only that."""
        return error if self._attempts is None or not address else self._attempts.refusal(address) or error

    async def take(self, principal: Principal) -> RateState:
        """One request of the client's allowance; LimitError. Also used by every authenticated route."""
        return take_one(self._counter, principal)

    def expire(self, now_s: float | None = None) -> None:
        """Answers 503 to whoever waits past its deadline (`now_s` by perf_counter); everyone, without `now_s`."""
        late = [
            p for p in self.in_flight if not p.settled and (now_s is None or p.submitted_s + self._timeout_s < now_s)
        ]
        for prediction in late:
            prediction.error = stopping() if now_s is None else timed_out(self._timeout_s)
        if late:
            self.settle(late)

    # Auth, limits, routing: up to the batcher

    def _admit(self, arrived: Sequence[Call]) -> None:
        """Each to the batcher, to the decoder's thread, or refused. The limit is taken once per client and turn."""
        at_ns = time.time_ns()
        admitted, asked = self._recognise(arrived)
        grants = {principal: grant(self._counter, principal, count) for principal, count in asked.items()}
        self._enter(admitted, grants, at_ns)

    def _recognise(self, arrived: Sequence[Call]) -> tuple[list[tuple[Call, Road]], dict[Principal, int]]:
        """Those whose keys are good, with their roads, and how many each key sent; the others are refused."""
        known = self._roads.known
        now_s = time.time()
        admitted: list[tuple[Call, Road]] = []
        asked: dict[Principal, int] = {}
        for call in arrived:
            road = known.get(call.head)
            if road is None or road.expires_at <= now_s:
                road = self._find_road(call)
                if road is None:
                    continue
            admitted.append((call, road))
            asked[road.principal] = asked.get(road.principal, 0) + 1
        self.used.update([principal.key_id for principal in asked])
        return admitted, asked

    def _enter(self, admitted: Sequence[tuple[Call, Road]], grants: Mapping[Principal, Grant], at_ns: int) -> None:
        """As many of each key's requests as were granted become predictions, in the order in which they came."""
        groups: dict[Any, list[Prediction]] = {}
        for call, road in admitted:
            try:
                prediction = self._begin(call, road, grants[road.principal], at_ns)
                if prediction is not None:
                    groups.setdefault(road.group, []).append(prediction)
            except Exception:
                self._refuse(call, broken(request_id_of(call.head.caller_request_id, "")), None)
        for group, predictions in groups.items():
            self._decode_group(group, predictions)

    def _find_road(self, call: Call) -> Road | None:
        try:
            return self._roads.find(call.head)
        except AuthenticationError as error:
            self._refuse(call, self._guessed(error, call.address), None)
        except ModelyardError as error:
            self._refuse(call, error, None)
        except Exception:
            self._refuse(call, broken(request_id_of(call.head.caller_request_id, "")), None)
        return None

    def _begin(self, call: Call, road: Road, granted: Grant, at_ns: int) -> Prediction | None:
        """The prediction, if it may go on now; what was refused or sent elsewhere is None."""
        if granted.left == 0:
            error = granted.error or InternalError("internal", "Nothing was granted.")
            self._refuse(call, error, granted.rate, road.principal.client)
            return None
        granted.left -= 1
        rate = granted.rate
        assert rate is not None  # it goes with what is granted
        prediction_id = self._next_id()
        route = road.route
        if route is None or self._refuse_stale or call.head.idempotency:
            try:
                if road.refusal is not None:
                    raise road.refusal
                self._check_fresh()
                route = route or split_route(self._roads.table, call, prediction_id)
                replays = self._replays if call.head.idempotency else None
                if replays is not None and replays.begin(call, road.principal.client, prediction_id, rate):
                    return None
            except ModelyardError as error:
                self._refuse(call, error, rate, road.principal.client)
                return None
        room = self._permits.take()
        try:
            full = self._batcher.full.get(id(route.servable)) if self._batcher.full else None
            request_id = request_id_of(call.head.caller_request_id, prediction_id)
            prediction = self._new(call, road, route, prediction_id, request_id, rate, at_ns)
            bounded = road.principal.quota_per_day is not None or road.principal.concurrency is not None
            over = own_bounds(self.clients, road.principal) if bounded and room and full is None else None
        except Exception:
            self._untake(call, road, prediction_id, room)
            raise
        if over is not None:
            self._untake(call, road, prediction_id, room)
            self._refuse(call, over, told(over, rate), road.principal.client)
            return None
        prediction.client_permit = bounded and room and full is None and road.principal.concurrency is not None
        self.in_flight.add(prediction)
        if not room:
            prediction.permit = False
            self._batcher.refuse(prediction, busy())
        elif full is not None:
            self._batcher.refuse(prediction, full)
        elif not is_read_apart(call):
            return prediction
        else:
            self._decode_apart(prediction)
        return None

    def _untake(self, call: Call, road: Road, prediction_id: str, room: bool) -> None:
        """The request was taken for a prediction, and becomes none."""
        if room:
            self._permits.release()
        if call.head.idempotency and self._replays is not None:
            self._replays.let_go(call, road.principal.client, prediction_id)

    def _decode_apart(self, prediction: Prediction) -> None:
        try:
            done = self._decoder.submit(self._read.apart, prediction, self._roads.table)
        except RuntimeError:  # it takes nothing more: the process is about to end
            self._batcher.refuse(prediction, stopping())
            return
        done.add_done_callback(
            lambda future: self._loop.call_soon_threadsafe(self._decoded_apart, prediction, *future.result())
        )

    def _decode_group(self, group: Any, predictions: list[Prediction]) -> None:
        """Decodes what arrived for one version in one form, together where that is possible."""
        requests: list[DecodedRequest | None] = [None] * len(predictions)
        if group is not None:
            codec: Any = predictions[0].road.codec
            bodies = [prediction.call.body for prediction in predictions]
            signature = predictions[0].servable.signature
            requests = codec.decode_turn(bodies, signature, self._read.bounds, group.content_type)
        submit = self._batcher.submit
        for prediction, request in zip(predictions, requests, strict=True):
            if request is None:
                self._decoded(prediction, self._read.plain(prediction))
            else:
                prediction.request = request
                submit(prediction)

    def _decoded_apart(self, prediction: Prediction, route: Route, result: DecodedRequest | ModelyardError) -> None:
        if not prediction.settled:
            prediction.take_route(route)
            self._decoded(prediction, result)

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
            prediction.error = broken(prediction.request_id)
        self._batcher.finish(prediction)

    def _check_fresh(self) -> None:
        if self._refuse_stale and time.monotonic() - self.fresh_s > self._max_age_s:
            text = "The server has not seen the database for too long."
            raise UnavailableError("snapshot_stale", text, retry_after_s=1.0)

    def _refuse(self, call: Call, error: ModelyardError, rate: RateState | None, client: str = "") -> None:
        """Answers what never became a prediction: it is counted, not recorded."""
        self.counters[error.code] = self.counters.get(error.code, 0) + 1
        request_id = request_id_of(call.head.caller_request_id, self._next_id())
        status, body = self._render_error(error, request_id)
        with suppress(Exception):  # of one connection, which hurts no other
            if self._refused is not None and status in (401, 403, 429):
                self._refused(status, error.code, client, call.address)
            call.answer(Answer(status, body, request_id, rate=rate, retry_after_s=error.retry_after_s))

    # Journal, answer

    def _deliver(self, turn: Sequence[Prediction]) -> None:
        if self._replays is not None and self._replays.running:
            self._replays.finish(turn)
        for prediction in turn:
            self.in_flight.discard(prediction)
            try:
                prediction.call.answer(prediction.answer)
            except Exception:  # of one connection, which hurts no other
                broken(prediction.request_id)
        with suppress(Exception):  # counting must not cost an answer
            if self._note is not None:
                self._note(turn)
