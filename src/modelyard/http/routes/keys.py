"""Keys of clients: issue, list, revoke (API-4, API-6)."""

from __future__ import annotations

from fastapi import Response

from modelyard.auth.scopes import Scope, parse_duration, parse_rate
from modelyard.core.events import Event
from modelyard.http.forms.views import issued_view, keys_view, one_key_view
from modelyard.http.routes.asked import NewKeyBody
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope
from modelyard.telemetry.logs import emit

routes = RouteTable("keys")


@routes.post("/v1/keys")
@scope(Scope.ADMIN)
def create_key(services: Wired, caller: Caller, body: NewKeyBody) -> Response:
    """Issues a key. The answer holds its text, this once."""
    require_every_model(caller)
    issued = services.keys.create(
        body.client,
        scopes=body.scopes,
        models=body.models,
        rate=None if body.rate is None else parse_rate(body.rate),
        expires_in_s=None if body.expires is None else parse_duration(body.expires),
    )
    emit(Event.KEY_CREATED, key_id=issued.key.id, client=body.client, by=caller.key_id)
    return JsonResponse(issued_view(issued, services.clock.now()), 201, {"cache-control": "no-store"})


@routes.get("/v1/keys")
@scope(Scope.ADMIN)
def list_keys(services: Wired, caller: Caller) -> Response:
    """All keys, newest first, without their texts."""
    require_every_model(caller)
    return JsonResponse({"keys": keys_view(services.keys.list(), services.clock.now())})


@routes.delete("/v1/keys/{id}")
@scope(Scope.ADMIN)
def revoke_key(services: Wired, caller: Caller, id: str) -> Response:
    """Ends a key; every worker refuses it within a second. A second call changes nothing."""
    require_every_model(caller)
    key = services.keys.revoke(id)
    emit(Event.KEY_REVOKED, key_id=id, by=caller.key_id)
    return JsonResponse(one_key_view(services.keys.list(), key, services.clock.now()))
