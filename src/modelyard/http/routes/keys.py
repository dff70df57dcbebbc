"""Keys of clients: issue, list, change, rotate, revoke (API-4, API-6)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response

from modelyard.auth.keys import find_key
from modelyard.auth.scopes import Scope, parse_duration, parse_rate
from modelyard.core.events import Event
from modelyard.http.forms.views import issued_view
from modelyard.http.resource.answers import IssuedAnswer, KeyAnswer, KeysAnswer, RevokedAnswer
from modelyard.http.resource.etags import etag_of, require_match, tagged
from modelyard.http.resource.keys import (
    change_key,
    client_bounds,
    key_selection,
    newest_first,
    revoke_selected,
    selected_keys,
    show_key,
)
from modelyard.http.resource.paging import page_answer, page_of
from modelyard.http.routes.asked import (
    KeyChangeBody,
    KeyListQuery,
    NewKeyBody,
    RevocationBody,
    RevocationQuery,
    RotationBody,
)
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope
from modelyard.telemetry.logs import emit

routes = RouteTable("keys")

SHOWN_ONCE = {"cache-control": "no-store"}


@routes.post("/v1/keys", IssuedAnswer, statuses=(201,))
@scope(Scope.ADMIN)
def create_key(services: Wired, caller: Caller, body: NewKeyBody) -> Response:
    """Issues a key. The answer holds its text, this once."""
    require_every_model(caller)
    issued = services.keys.create(
        body.client,
        scopes=body.scopes,
        models=body.models,
        rate=None if body.rate is None else parse_rate(body.rate),
        bounds=client_bounds(body.bounds()),
        expires_in_s=None if body.expires is None else parse_duration(body.expires),
    )
    emit(Event.KEY_CREATED, key_id=issued.key.id, client=body.client, by=caller.key_id)
    return JsonResponse(issued_view(issued, services.clock.now()), 201, SHOWN_ONCE)


@routes.get("/v1/keys", KeysAnswer)
@scope(Scope.ADMIN)
def list_keys(request: Request, services: Wired, caller: Caller, asked: Annotated[KeyListQuery, Query()]) -> Response:
    """Keys, newest first, without their texts: all, or those of a client, unused for so long, or made before."""
    require_every_model(caller)
    found = selected_keys(services, key_selection(asked.model_dump(), services.clock.now()))
    page = page_of(found, "keys", newest_first, asked.limit, asked.cursor)
    return page_answer(request, "keys", page.elements, page.next_cursor)


@routes.get("/v1/keys/{id}", KeyAnswer, tagged=True)
@scope(Scope.ADMIN)
def get_key(request: Request, services: Wired, caller: Caller, id: str) -> Response:
    """One key, without its text."""
    require_every_model(caller)
    view = show_key(services, find_key(services.keys.list(), id))
    return tagged(request, JsonResponse(view), key_tag(view))


@routes.patch("/v1/keys/{id}", KeyAnswer, tagged=True, guarded=True)
@scope(Scope.ADMIN)
def update_key(request: Request, services: Wired, caller: Caller, id: str, body: KeyChangeBody) -> Response:
    """Changes a key's models and its client's rate, quota, concurrency and models; workers follow within a second."""
    require_every_model(caller)
    _check_tag(request, services, id)
    key = change_key(services, id, body.given())
    emit(Event.KEY_CHANGED, key_id=id, by=caller.key_id)
    view = show_key(services, key)
    return tagged(request, JsonResponse(view), key_tag(view))


@routes.post("/v1/keys/{id}/rotation", IssuedAnswer, statuses=(201,), refusals=(404, 409))
@scope(Scope.ADMIN)
def rotate_key(services: Wired, caller: Caller, id: str, body: RotationBody | None = None) -> Response:
    """Issues a successor for the same client, scopes and models. The old key goes on for the overlap, then ends by
    itself. The answer holds the new key's text, this once."""
    require_every_model(caller)
    overlap = (body or RotationBody(overlap="24h")).overlap
    issued = services.keys.rotate(id, parse_duration(overlap, "overlap"))
    emit(Event.KEY_ROTATED, key_id=id, successor=issued.key.id, by=caller.key_id)
    return JsonResponse(issued_view(issued, services.clock.now()), 201, SHOWN_ONCE)


@routes.post("/v1/keys/revocations", RevokedAnswer)
@scope(Scope.ADMIN)
def revoke_keys(services: Wired, caller: Caller, body: RevocationBody) -> Response:
    """Ends all active keys of a client, or unused for so long, or made before; not the caller's own."""
    require_every_model(caller)
    selection = key_selection(body.model_dump(exclude={"dry_run"}), services.clock.now())
    return _revoked(revoke_selected(services, selection, body.dry_run, caller.key_id), caller.key_id)


@routes.delete("/v1/clients/{client}/keys", RevokedAnswer)
@scope(Scope.ADMIN)
def revoke_client(services: Wired, caller: Caller, client: str, asked: Annotated[RevocationQuery, Query()]) -> Response:
    """Ends all active keys of a client; not the caller's own. Without any, nothing changes."""
    require_every_model(caller)
    selection = key_selection({"client": client}, services.clock.now())
    return _revoked(revoke_selected(services, selection, asked.dry_run, caller.key_id), caller.key_id)


@routes.delete("/v1/keys/{id}", KeyAnswer, guarded=True, refusals=(404,))
@scope(Scope.ADMIN)
def revoke_key(request: Request, services: Wired, caller: Caller, id: str) -> Response:
    """Ends a key; every worker refuses it within a second. A second call changes nothing."""
    require_every_model(caller)
    _check_tag(request, services, id)
    key = services.keys.revoke(id)
    emit(Event.KEY_REVOKED, key_id=id, by=caller.key_id)
    return JsonResponse(show_key(services, key))


def key_tag(view: dict[str, Any]) -> str:
    """The tag of a key as it is shown; its last use is no edit."""
    return etag_of({name: value for name, value in view.items() if name != "last_used_at"})


def _check_tag(request: Request, services: Wired, key_id: str) -> None:
    if "if-match" in request.headers:
        require_match(request, key_tag(show_key(services, find_key(services.keys.list(), key_id))))


def _revoked(said: dict[str, Any], by: str) -> Response:
    if not said["dry_run"]:
        for view in said["revoked"]:
            emit(Event.KEY_REVOKED, key_id=view["id"], by=by)
    return JsonResponse(said)
