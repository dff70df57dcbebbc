"""Endpoints and the shares of their versions (OPS-6)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from modelyard.auth.scopes import Scope
from modelyard.core.events import Event
from modelyard.http.forms.asking import traffic_weights
from modelyard.http.forms.views import endpoint_view
from modelyard.http.resource.answers import EndpointAnswer, EndpointsAnswer
from modelyard.http.resource.etags import require_match, revision_etag, tagged
from modelyard.http.resource.paging import page_answer, page_of
from modelyard.http.routes.asked import EndpointName, ListQuery, TrafficBody
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, scope
from modelyard.http.services import admit_traffic
from modelyard.telemetry.logs import emit

routes = RouteTable("endpoints")


@routes.get("/v1/endpoints", EndpointsAnswer)
@scope(Scope.ADMIN)
def list_endpoints(request: Request, services: Wired, caller: Caller, asked: Annotated[ListQuery, Query()]) -> Response:
    """The endpoints that this key may see, by name."""
    endpoints = [endpoint for endpoint in services.endpoints.endpoints() if caller.models.allows(endpoint.name)]
    page = page_of(endpoints, "endpoints", lambda endpoint: (endpoint.name,), asked.limit, asked.cursor)
    return page_answer(request, "endpoints", list(map(endpoint_view, page.elements)), page.next_cursor)


@routes.get("/v1/endpoints/{endpoint}/traffic", EndpointAnswer, tagged=True)
@scope(Scope.ADMIN)
def show_traffic(request: Request, services: Wired, endpoint: EndpointName) -> Response:
    """The shares in percent. `ETag` names what was seen."""
    found = services.endpoints.endpoint(endpoint)
    return tagged(request, JsonResponse(endpoint_view(found)), revision_etag(found.revision))


@routes.put("/v1/endpoints/{endpoint}/traffic", EndpointAnswer, tagged=True, guarded=True, refusals=(409,))
@scope(Scope.ADMIN)
def set_traffic(
    request: Request, services: Wired, caller: Caller, endpoint: EndpointName, body: TrafficBody
) -> Response:
    """Replaces the shares, all at once; every worker follows within a second. With `If-Match` only what was seen is
    replaced: 412 if it is otherwise already, 409 if another change wins at the same moment, or if a version would not
    fit into memory beside those that have traffic."""
    weights = traffic_weights(body.weights)
    seen = services.endpoints.endpoint(endpoint).revision
    guarded = require_match(request, revision_etag(seen))
    admit_traffic(services, endpoint, weights)
    changed = services.endpoints.set_traffic(endpoint, weights, seen if guarded else None)
    emit(Event.TRAFFIC_CHANGED, endpoint=endpoint, weights=dict(changed.weights), by=caller.key_id)
    return JsonResponse(endpoint_view(changed), 200, {"etag": revision_etag(changed.revision)})
