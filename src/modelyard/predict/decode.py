"""From a request's body to tensors, in the loop or in a decoder's thread."""

from __future__ import annotations

from modelyard.codec.compression import decompress
from modelyard.core.errors import InternalError, ModelyardError
from modelyard.core.types import CodecBounds, DecodedRequest, RawRequest
from modelyard.predict.prediction import Prediction
from modelyard.predict.road import subject_route
from modelyard.routing.table import Route, RoutingTable


class Decoder:
    """How one worker reads bodies: `bounds` for JSON, `max_body_bytes` for what a compressed one may become. Changes
    nothing of a prediction, so it may run in any thread. Never raises."""

    def __init__(self, bounds: CodecBounds, max_body_bytes: int) -> None:
        self.bounds = bounds
        self._max_body_bytes = max_body_bytes

    def plain(self, prediction: Prediction) -> DecodedRequest | ModelyardError:
        """The tensors of a body that is not compressed."""
        return self._tensors(prediction, prediction.call.body, prediction.route)

    def apart(self, prediction: Prediction, table: RoutingTable) -> tuple[Route, DecodedRequest | ModelyardError]:
        """The tensors of any body, and the route: a subject inside a compressed or large body decides it only now, by
        the table that the request came under."""
        head, body, route = prediction.call.head, prediction.call.body, prediction.route
        try:
            if head.content_encoding is not None:
                body = decompress(body, head.content_encoding, self._max_body_bytes)
            if prediction.road.route is None and head.subject is None:
                route = subject_route(table, head, body, prediction.id)
        except ModelyardError as error:
            return route, error
        except Exception as error:
            return route, _unread(error)
        return route, self._tensors(prediction, body, route)

    def _tensors(self, prediction: Prediction, body: bytes, route: Route) -> DecodedRequest | ModelyardError:
        head = prediction.call.head
        try:
            raw = RawRequest(body, head.content_type, head.header_length)
            return prediction.road.codec.decode(raw, route.servable.signature, self.bounds)
        except ModelyardError as error:
            return error
        except Exception as error:
            return _unread(error)


def _unread(error: Exception) -> ModelyardError:
    return InternalError("internal", "The request could not be read.", reason=type(error).__name__)
