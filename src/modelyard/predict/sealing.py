"""The end of a prediction: its answer, and the frame that the journal keeps of it (promise P1)."""

from __future__ import annotations

from contextlib import suppress

from modelyard.codec.compression import compress
from modelyard.core.call import Answer, ErrorRenderer
from modelyard.core.errors import OverloadError
from modelyard.journal.frame import frame_of
from modelyard.predict.prediction import Prediction, broken
from modelyard.predict.road import standing

CLIENT_GONE = 499
"""Status of a record whose caller left before the answer (nginx's number); never sent."""


def seal(prediction: Prediction, parts: list[bytes], now_s: float, render_error: ErrorRenderer) -> None:
    """Makes the answer and its frame, which is added to `parts`; a caller that left gets a record that says so."""
    call, error, request = prediction.call, prediction.error, prediction.request
    gone = error is None and call.gone
    code = "client_gone" if gone else "" if error is None else error.code
    subject = call.head.subject or request.subject or ""
    texts = (code, subject, call.head.idempotency) if code or subject or call.head.idempotency else None
    render(prediction, render_error)
    length, rows, submitted_s = prediction.header_length, request.rows, prediction.submitted_s
    started_s = prediction.started_s
    queue_us = int((started_s - submitted_s) * 1e6) if started_s else 0
    prediction_id = prediction.id.encode()
    # Refused for want of room, it was not read; keeping it would cost most when there is least.
    body = b"" if isinstance(error, OverloadError) else call.body
    parts += frame_of(
        prediction_id, prediction.at_ns, CLIENT_GONE if gone else prediction.status, len(request.items) or rows,
        (queue_us, int((prediction.ended_s - started_s) * 1e6), int((now_s - submitted_s) * 1e6)),
        -1 if length is None else length,
        prediction_id if prediction.request_id is prediction.id else prediction.request_id.encode(),
        texts,
        prediction.road.standing or standing(call.head, prediction.road.principal, prediction.route),
        body, prediction.body,
    )  # fmt: skip


def seal_broken(prediction: Prediction, parts: list[bytes], now_s: float, render_error: ErrorRenderer) -> None:
    """The answer could not be made or framed: the caller hears that, and the record too if it can be written. Called
    while the exception is handled."""
    prediction.error = broken(prediction.request_id)
    with suppress(Exception):
        seal(prediction, parts, now_s, render_error)
        return
    render(prediction, render_error, plain=True)


def render(prediction: Prediction, render_error: ErrorRenderer, plain: bool = False) -> None:
    """Makes the answer, compressed where the caller takes that; never so if it is `plain`."""
    error, body = prediction.error, prediction.body
    if error is not None:
        prediction.status, body = render_error(error, prediction.request_id)
        prediction.body, prediction.header_length = body, None
    accepted, encoding = prediction.call.head.accept_encoding, None
    if accepted is not None and not plain:
        body, encoding = compress(body, accepted)
    prediction.answer = Answer(
        prediction.status,
        body,
        prediction.request_id,
        prediction.header_length,
        prediction.id,
        prediction.servable.version,
        prediction.rate,
        None if error is None else error.retry_after_s,
        encoding,
    )
