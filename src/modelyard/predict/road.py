"""Who asks, and where does it lead? Worked out once for every request whose head has the same bytes (API-6)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from modelyard.auth.scopes import Scope
from modelyard.auth.table import KeyTable, Principal
from modelyard.codec.log import subject_of
from modelyard.core.call import Call, RequestHead
from modelyard.core.errors import ModelyardError
from modelyard.core.types import RawRequest, Servable, Surface, SurfaceCodec
from modelyard.journal.frame import encode_standing
from modelyard.routing.table import Route, RoutingTable

MOST_ROADS = 4096
OFF_LOOP_BYTES = 256 * 1024
"""Bodies over this size and all compressed ones are read off the loop (hot path contract)."""


class Group(NamedTuple):
    """Whose bodies may be decoded together."""

    servable_id: int
    surface: Surface
    content_type: bytes | None


class Road(NamedTuple):
    """What a request's head says, checked against one key table and one routing table.

    `route` None: each request is routed by its own id. `refusal`: the caller is known but may not, or there is nothing
    there; it is told after the limit, so that asking costs. `standing` is what all records of this road have in
    common, `plain` whether the body needs nothing but the codec, `group` whose bodies are decoded together (then all
    are plain).
    """

    principal: Principal
    expires_at: float
    codec: SurfaceCodec
    route: Route | None = None
    refusal: ModelyardError | None = None
    standing: bytes = b""
    plain: bool = False
    group: Group | None = None


class Roads:
    """The roads that lasting heads have; they go when the tables change. `keys` and `table` are replaced whole."""

    def __init__(self, keys: KeyTable, table: RoutingTable, codecs: Mapping[Surface, SurfaceCodec]) -> None:
        self.known: dict[RequestHead, Road] = {}
        self.keys = keys
        self.table = table
        self.codecs = codecs

    def renew(self, keys: KeyTable | None = None, table: RoutingTable | None = None) -> None:
        """From now on requests are checked against these; safe from any thread."""
        if keys is not None:
            self.keys = keys
        if table is not None:
            self.table = table
        self.known = {}  # a new one: what the loop is writing into the old one goes with it

    def find(self, head: RequestHead) -> Road:
        """The road of a head that has none yet, or whose key may have expired. AuthenticationError."""
        known, keys, table = self.known, self.keys, self.table
        principal = keys.authenticate(head.key, time.time())
        codec = self.codecs[head.surface]
        try:
            principal.require(Scope.PREDICT, head.model)
            route = table.standing_route(head.model, head.version)
        except ModelyardError as refusal:
            return Road(principal, -inf, codec, refusal=refusal)
        if route is None:
            return Road(principal, -inf, codec)
        plain = head.content_encoding is None and head.header_length is None and hasattr(codec, "decode_turn")
        road = Road(
            principal,
            inf if principal.expires_at is None else principal.expires_at,
            codec,
            route,
            None,
            standing(head, principal, route),
            plain,
            Group(id(route.servable), head.surface, head.content_type) if plain else None,
        )
        if head.lasting:
            if len(known) >= MOST_ROADS:
                known.clear()
            known[head] = road
        return road


def is_read_apart(call: Call) -> bool:
    """Whether the body is for the decoder's thread."""
    return call.head.content_encoding is not None or len(call.body) > OFF_LOOP_BYTES


def split_route(table: RoutingTable, call: Call, prediction_id: str) -> Route:
    """By the subject, so that it stays with its version (P12); by the prediction's id where there is none. The subject
    in a body that is read apart is not known yet: its route is found again then (`subject_route`)."""
    head = call.head
    if head.subject is None and not is_read_apart(call):
        return subject_route(table, head, call.body, prediction_id)
    return table.route(head.model, head.version, head.subject or prediction_id)


def subject_route(table: RoutingTable, head: RequestHead, body: bytes, prediction_id: str) -> Route:
    """By the subject that the body names; by the prediction's id where it names none."""
    subject = subject_of(RawRequest(body, head.content_type, head.header_length))
    return table.route(head.model, head.version, subject or prediction_id)


def standing(head: RequestHead, principal: Principal, route: Route) -> bytes:
    """What all records of this head, key and version have in common (journal.record, STANDING_FIELDS)."""
    servable: Servable = route.servable
    return encode_standing((
        head.surface, head.content_type or b"", head.content_encoding or b"", head.header_length or b"",
        principal.key_id, principal.client, route.endpoint, servable.model, servable.version, route.arm,
        servable.digest, servable.redaction,
    ))  # fmt: skip
