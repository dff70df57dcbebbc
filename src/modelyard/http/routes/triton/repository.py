"""Triton's model repository extension: what is there, and load and unload as far as they mean something here.

Every worker keeps loaded what gets traffic, and of the rest what fits, so a load only says whether that is so, and
nothing that gets traffic is unloaded (docs/guides/clients.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import Request, Response

from modelyard.auth.scopes import Scope
from modelyard.core.errors import ConflictError, InvalidRequestError, ModelyardError, NotFoundError
from modelyard.http.routes.asked import ModelName
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, scope
from modelyard.http.routes.oip import Table
from modelyard.http.routes.triton.forms import NothingAnswer, RepositoryIndexAnswer
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable

routes = RouteTable("model repository")


@routes.post("/v2/repository/index", RepositoryIndexAnswer, refusals=(400,))
@scope(Scope.PREDICT)
async def repository_index(request: Request, table: Table, caller: Caller) -> Response:
    """The versions behind each endpoint that this key may see. `{"ready": true}` leaves out what does not answer; the
    body may be empty."""
    document = await _body(request, ("ready",))
    only_ready = document.get("ready", False)
    if type(only_ready) is not bool:
        raise InvalidRequestError(
            "field_type", "ready must be true or false.", field="ready", expected="true or false", example=True
        )
    visible = [endpoint for name, endpoint in sorted(table.endpoints.items()) if caller.models.allows(name)]
    entries = [entry for endpoint in visible for entry in _entries(table, endpoint)]
    return JsonResponse([entry for entry in entries if entry["state"] == "READY" or not only_ready])


@routes.post("/v2/repository/models/{model}/load", NothingAnswer, refusals=(404,))
@scope(Scope.ADMIN)
async def load_model(request: Request, table: Table, model: ModelName) -> Response:
    """200 if every version with traffic is loaded in the worker that answers, else 503 with the reason."""
    await _body(request, ("parameters",))
    endpoint = _endpoint(table, model)
    for version, share in endpoint.weights:
        if share > 0:
            table.route(model, version, "")
    return JsonResponse({})


@routes.post("/v2/repository/models/{model}/unload", NothingAnswer, refusals=(404, 409))
@scope(Scope.ADMIN)
async def unload_model(request: Request, table: Table, model: ModelName) -> Response:
    """409: what an endpoint sends traffic to stays loaded; 200 only if none of it is loaded anyhow."""
    await _body(request, ("parameters",))
    endpoint = _endpoint(table, model)
    versions = [version for version, share in endpoint.weights if share > 0]
    if not any((endpoint.model, version) in table.servables for version in versions):
        return JsonResponse({})
    raise ConflictError(
        "model_in_traffic",
        f"The endpoint `{model}` sends traffic to version {', '.join(f'`{name}`' for name in versions)}, "
        "which stays loaded; give the traffic to another version instead.",
        field="model",
        expected="a model that gets no traffic",
        got=model,
    )


def _endpoint(table: RoutingTable, name: str) -> Endpoint:
    endpoint = table.endpoints.get(name)
    if endpoint is None:
        raise NotFoundError("model_not_found", f"There is no model `{name}`.", field="model", got=name)
    return endpoint


def _entries(table: RoutingTable, endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    for version in table.versions(endpoint.model):
        try:
            table.route(endpoint.name, version, "")
        except ModelyardError as error:
            yield {"name": endpoint.name, "version": version, "state": "UNAVAILABLE", "reason": error.message}
        else:
            yield {"name": endpoint.name, "version": version, "state": "READY", "reason": ""}


async def _body(request: Request, known: tuple[str, ...]) -> dict[str, Any]:
    """The body's object, {} for an empty body: tritonclient sends none, and no content type. A parameter would change
    what is served here, beside every release; none is taken but `unload_dependents`, which changes nothing."""
    if not await request.body():
        return {}
    document = await request.json()
    if type(document) is not dict:
        raise InvalidRequestError(
            "field_type", "body must be an object.", field="body", expected="an object", example=dict.fromkeys(known)
        )
    for key in document:
        if key not in known:
            raise InvalidRequestError(
                "field_unknown", f"{key[:100]} is not known here.", field=key[:100], expected=list(known), got=key[:100]
            )
    parameters = document.get("parameters") or {}
    if type(parameters) is not dict or not parameters.keys() <= {"unload_dependents"}:
        raise InvalidRequestError(
            "parameter_invalid",
            "A model is loaded as it was published; a load takes no parameters.",
            field="parameters",
            expected="no parameters",
        )
    return document
