"""What the connections of one worker share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from uvicorn.server import ServerState

from modelyard.core.call import Answer, ErrorRenderer, RequestHead
from modelyard.core.errors import InvalidRequestError, ModelyardError
from modelyard.core.settings import HttpSettings
from modelyard.http.connection.heads import KnownHeads
from modelyard.http.edge.proxied import Proxies, native_targets
from modelyard.http.wire import Target, invoked_model, read_head
from modelyard.predict import REQUEST_ID, Predictor


class Shared:
    """What the connections of one worker share. `date` is the ready header line, renewed every second."""

    def __init__(
        self, predictor: Predictor, settings: HttpSettings, render_error: ErrorRenderer, next_id: Callable[[], str]
    ) -> None:
        self.predictor = predictor
        self.settings = settings
        self.render_error = render_error
        self.next_id = next_id
        self.targets = native_targets(settings)
        self.heads = KnownHeads()
        self.proxies = Proxies(settings)
        self.draining = False
        self.inflight_bytes = 0
        self.connections: set[Any] = set()
        self.state = ServerState()
        self.date = b""
        self.renew_date()

    def renew_date(self) -> None:
        """Called once a second; for native answers and for uvicorn's own."""
        date = formatdate(usegmt=True).encode("ascii")
        self.date = b"date: " + date + b"\r\n"
        self.state.default_headers = [(b"date", date)]

    def _invoked(self, fields: Mapping[bytes, bytes], query: bytes) -> str:
        """The model of a request to `/invocations` (wire.invoked_model)."""
        endpoints = self.predictor.table.endpoints
        only = next(iter(endpoints)) if len(endpoints) == 1 else None
        return invoked_model(fields, query, self.settings.default_endpoint or only)

    def head(self, target: Target, key: bytes | None, fields: Mapping[bytes, bytes], query: bytes = b"") -> RequestHead:
        """What the spine needs of a request's head; what is wrong in it is only told to who has a key."""
        try:
            if not target.model:
                target = Target(target.surface, self._invoked(fields, query), None)
            return read_head(target, key, fields)
        except InvalidRequestError:
            self.predictor.authenticate(key)
            raise

    def refusal(self, error: ModelyardError, caller_request_id: bytes | None) -> Answer:
        """The answer to what never reached the spine."""
        if caller_request_id is not None and REQUEST_ID.fullmatch(caller_request_id):
            request_id = caller_request_id.decode("ascii")
        else:
            request_id = self.next_id()
        status, body = self.render_error(error, request_id)
        return Answer(status, body, request_id, retry_after_s=error.retry_after_s)
