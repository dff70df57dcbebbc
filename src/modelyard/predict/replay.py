"""Requests with an Idempotency-Key: one prediction for each, and the logged answer again for a retry."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from modelyard.codec.compression import compress
from modelyard.core.call import Answer, Call, RateState, RequestHead
from modelyard.core.errors import ModelyardError
from modelyard.journal.ports import AnswerIndex, KeptAnswer
from modelyard.predict.prediction import Prediction, broken, request_id_of


def request_digest(head: RequestHead, body: bytes) -> bytes:
    """What makes two requests the same: route, model, version, form, subject and body (SHA-256)."""
    said = (
        head.surface.encode(), head.model.encode(), (head.version or "").encode(), head.content_type or b"",
        head.content_encoding or b"", head.header_length or b"", (head.subject or "").encode("utf-8", "surrogatepass"),
    )  # fmt: skip
    digest = hashlib.sha256(b"\0".join(said) + b"\0")
    digest.update(body)
    return digest.digest()


class Replays:
    """One worker's; `begin` and `finish` belong to the loop's thread. `running` counts the keys that are taken."""

    def __init__(self, index: AnswerIndex) -> None:
        self.running = 0
        self._index = index
        self._unkept: list[tuple[str, str, KeptAnswer]] = []

    def begin(self, call: Call, client: str, prediction_id: str, rate: RateState) -> bool:
        """Whether the request was answered already, and is now again. Raises what AnswerIndex.begin raises."""
        head = call.head
        kept = self._index.begin(client, head.idempotency, request_digest(head, call.body), prediction_id)
        if kept is None:
            self.running += 1
            return False
        body, encoding = kept.body, None
        if head.accept_encoding is not None:
            body, encoding = compress(body, head.accept_encoding)
        request_id = request_id_of(head.caller_request_id, prediction_id)
        call.answer(Answer(
            kept.status, body, request_id, kept.header_length, kept.prediction_id, kept.version, rate,
            content_encoding=encoding, replayed=True,
        ))  # fmt: skip
        return True

    def finish(self, turn: Sequence[Prediction]) -> None:
        """Keeps the answers of a turn before they leave; what cannot be kept now is kept by `retry`. Never raises."""
        for prediction in turn:
            head = prediction.call.head
            if head.idempotency:
                self.running -= 1
                self._keep(
                    prediction.road.principal.client,
                    head.idempotency,
                    KeptAnswer(
                        prediction.id, prediction.status, prediction.servable.version, prediction.header_length,
                        prediction.body,
                    ),
                )  # fmt: skip

    def let_go(self, call: Call, client: str, prediction_id: str) -> None:
        """The key that `begin` took was not used after all. Never raises."""
        self.running -= 1
        self._keep(client, call.head.idempotency, KeptAnswer(prediction_id, 503, "", None, b""))

    def retry(self) -> None:
        """Keeps what could not be kept before; called now and then on the loop's thread. Never raises."""
        waiting, self._unkept = self._unkept, []
        for one in waiting:
            self._keep(*one)

    def _keep(self, client: str, key: str, answer: KeptAnswer) -> None:
        try:
            self._index.finish(client, key, answer)
        except ModelyardError:
            self._unkept.append((client, key, answer))
        except Exception:  # the answer leaves all the same: its record is written
            broken(answer.prediction_id)
