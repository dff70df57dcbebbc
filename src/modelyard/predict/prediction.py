"""One request on its way, and what is said when something breaks under it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from modelyard.core.call import Answer, Call, RateState
from modelyard.core.errors import DeadlineError, InternalError, ModelyardError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.types import AnswerContext, DecodedRequest, Servable, Tensors
from modelyard.predict.road import Road
from modelyard.routing.table import Route
from modelyard.telemetry.logs import emit

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
NO_REQUEST = DecodedRequest(inputs={}, rows=0)


class Prediction:
    """One request; owned by the loop thread. Implements the batcher's Job.

    What most predictions never change is set on the class: one of them is made for each request.
    """

    request: DecodedRequest = NO_REQUEST
    error: ModelyardError | None = None
    permit = True
    client_permit = False
    settled = False
    status = 0
    body: bytes = b""
    header_length: int | None = None
    standing: bytes = b""
    started_s = ended_s = 0.0
    """When its run started and ended; 0 where there was none."""
    answer: Answer

    def __init__(
        self, call: Call, road: Road, route: Route, prediction_id: str, request_id: str, rate: RateState, at_ns: int
    ) -> None:
        self.call = call
        self.road = road
        self.route = route
        self.servable: Servable = route.servable
        self.id = prediction_id
        self.request_id = request_id
        self.rate = rate
        self.at_ns = at_ns
        self.submitted_s = time.perf_counter()

    def take_route(self, route: Route) -> None:
        """Another version answers: a body that is read apart may name it, before its run."""
        self.route, self.servable = route, route.servable

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
        encoded = self.road.codec.encode(self.request, outputs, context_of(self.servable, self.id))
        self.body, self.header_length = encoded.body, encoded.header_length
        self.status = 200


def context_of(servable: Servable, prediction_id: str) -> AnswerContext:
    """What an answer of this version says beside the tensors."""
    return AnswerContext(servable.model, servable.version, prediction_id, servable.signature)


def answer_together(jobs: Sequence[Any], outputs: Tensors, started_s: float, ended_s: float) -> bool:
    """Encodes the answers of a batch in one go, where all of them are usual (batching.ports.Together)."""
    batch: Sequence[Prediction] = jobs
    codec: Any = batch[0].road.codec
    for job in batch:
        if job.settled or not job.road.plain or job.road.codec is not codec:
            return False
    ids = [job.id.encode() for job in batch]
    bodies = codec.encode_turn([job.request for job in batch], outputs, ids, context_of(batch[0].servable, ""))
    if bodies is None:
        return False
    for job, body in zip(batch, bodies, strict=True):
        job.started_s, job.ended_s = started_s, ended_s
        job.body = body
        job.status = 200
    return True


def request_id_of(given: bytes | None, prediction_id: str) -> str:
    """The caller's id if it is a good one, else the prediction's."""
    if given is not None and REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return prediction_id


def broken(request_id: str) -> ModelyardError:
    """Our fault, logged with its traceback under the request's id; called while the exception is handled."""
    emit(Event.REQUEST_FAILED, "error", request_id=request_id, exc_info=True)
    return InternalError("internal", "Something broke here; the log has it under the request id.")


def stopping() -> UnavailableError:
    """The process ends before the request could be answered."""
    return UnavailableError("shutting_down", "The server stops; the request was not answered.", retry_after_s=1.0)


def timed_out(timeout_s: float) -> ModelyardError:
    """The deadline passed."""
    return DeadlineError(
        "request_timeout",
        f"The model did not answer within {timeout_s:g} s.",
        retry_after_s=1.0,
        field="http.request_timeout_s",
    )
