"""Endpoints and the shares of their versions (OPS-6)."""

from __future__ import annotations

from fastapi import Response

from modelyard.auth.scopes import Scope
from modelyard.core.events import Event
from modelyard.http.forms.asking import traffic_weights
from modelyard.http.forms.views import endpoint_view
from modelyard.http.routes.asked import EndpointName, TrafficBody
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, scope
from modelyard.telemetry.logs import emit

routes = RouteTable("endpoints")


@routes.get("/v1/endpoints")
@scope(Scope.ADMIN)
def list_endpoints(services: Wired, caller: Caller) -> Response:
    """The endpoints that this key may see, by name."""
    endpoints = [endpoint for endpoint in services.endpoints.endpoints() if caller.models.allows(endpoint.name)]
    return JsonResponse({"endpoints": [endpoint_view(endpoint) for endpoint in endpoints]})


@routes.get("/v1/endpoints/{endpoint}/traffic")
@scope(Scope.ADMIN)
def show_traffic(services: Wired, endpoint: EndpointName) -> Response:
    """The shares in percent."""
    return JsonResponse(endpoint_view(services.endpoints.endpoint(endpoint)))


@routes.put("/v1/endpoints/{endpoint}/traffic")
@scope(Scope.ADMIN)
def set_traffic(services: Wired, caller: Caller, endpoint: EndpointName, body: TrafficBody) -> Response:
    """Replaces the shares, all at once; every worker follows within a second."""
    changed = services.endpoints.set_traffic(endpoint, traffic_weights(body.weights))
    emit(Event.TRAFFIC_CHANGED, endpoint=endpoint, weights=dict(changed.weights), by=caller.key_id)
    return JsonResponse(endpoint_view(changed))
