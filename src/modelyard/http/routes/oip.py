"""The Open Inference Protocol's routes beside inference: what the server is, what a model is, health."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request, Response

import modelyard
from modelyard.auth.scopes import Scope
from modelyard.core.errors import ModelyardError, NotFoundError, UnavailableError
from modelyard.core.types import TensorSpec
from modelyard.http.errors import error_headers, render_error
from modelyard.http.resource.answers import (
    AliveAnswer,
    LiveAnswer,
    MetadataAnswer,
    ModelReadyAnswer,
    NotReadyAnswer,
    ReadyAnswer,
    ServerAnswer,
)
from modelyard.http.routes.asked import ModelName, VersionName
from modelyard.http.routes.gate import JsonResponse, RouteTable, Wired, public, scope
from modelyard.http.services import Services
from modelyard.models.ports import Version
from modelyard.routing.table import RoutingTable

routes = RouteTable("open inference protocol")

EXTENSIONS = ("binary_tensor_data", "classification", "model_repository", "statistics")
PLATFORMS = {"onnx": "onnx_onnxv1", "sklearn": "sklearn_skops"}
"""`<project>_<format>`, as the protocol names them; `modelyard_<format>` for others."""


async def _reason(request: Request) -> str:
    ask: Callable[[], str] = request.app.state.reason
    return ask()


async def _table(request: Request) -> RoutingTable:
    ask: Callable[[], RoutingTable] = request.app.state.table
    return ask()


Reason = Annotated[str, Depends(_reason)]
"""Why this process is not ready; empty if it is."""
Table = Annotated[RoutingTable, Depends(_table)]
"""What this process routes by, now."""


@routes.get("/v2", ServerAnswer)
@public
async def server_metadata() -> Response:
    """What the server is and which extensions it speaks."""
    return JsonResponse({"name": "modelyard", "version": modelyard.__version__, "extensions": list(EXTENSIONS)})


@routes.get("/v2/", ServerAnswer)
@public
async def server_metadata_slash() -> Response:
    """As `/v2`: the protocol's OpenAPI file writes it with the slash."""
    return await server_metadata()


@routes.get("/v2/health/live", LiveAnswer)
@public
async def live() -> Response:
    """Whether the event loop turns: an answer is the proof."""
    return JsonResponse({"live": True})


@routes.get("/", AliveAnswer)
@public
async def alive() -> Response:
    """As `/v2/health/live`: clients of KServe's V1 protocol ask here."""
    return JsonResponse({"status": "alive"})


@routes.get("/v2/health/ready", ReadyAnswer, others={503: NotReadyAnswer})
@public
async def ready(request: Request, reason: Reason) -> Response:
    """Whether requests may be sent here; 503 with the reason otherwise."""
    if not reason:
        return JsonResponse({"ready": True, "live": True})
    error = UnavailableError("model_not_ready", f"Not ready: {reason}.", retry_after_s=1.0)
    return _not_ready(request, error, {"ready": False, "live": True, "reason": reason})


@routes.get("/ping", ReadyAnswer, others={503: NotReadyAnswer})
@public
async def ping(request: Request, reason: Reason) -> Response:
    """As `/v2/health/ready`: SageMaker and MLflow ask here."""
    return await ready(request, reason)


@routes.get("/v2/models/{model}", MetadataAnswer)
@scope(Scope.PREDICT)
def model_metadata(services: Wired, model: ModelName) -> Response:
    """Inputs and outputs of the version that gets the most traffic."""
    return JsonResponse(_metadata(services, model, _served(services, model)))


@routes.get("/v2/models/{model}/versions/{version}", MetadataAnswer)
@scope(Scope.PREDICT)
def version_metadata(services: Wired, model: ModelName, version: VersionName) -> Response:
    """Inputs and outputs of a version."""
    return JsonResponse(_metadata(services, model, _version(services, model, version)))


@routes.get("/v2/models/{model}/ready", ModelReadyAnswer, others={503: NotReadyAnswer})
@scope(Scope.PREDICT)
async def model_ready(request: Request, table: Table, model: ModelName) -> Response:
    """Whether every version that gets traffic answers."""
    endpoint = table.endpoints.get(model)
    if endpoint is None:
        raise _no_model(model)
    given = [(endpoint.model, version) for version, share in endpoint.weights if share > 0]
    for _, version in (key for key in given if key in table.unhealthy):
        return await version_ready(request, table, model, version)
    return _readiness(request, model, all(key in table.servables for key in given))


@routes.get("/v2/models/{model}/versions/{version}/ready", ModelReadyAnswer, others={503: NotReadyAnswer})
@scope(Scope.PREDICT)
async def version_ready(request: Request, table: Table, model: ModelName, version: VersionName) -> Response:
    """Whether a version answers."""
    try:
        table.route(model, version, "")
    except UnavailableError as error:
        return _not_ready(request, error, {"name": model, "ready": False})
    return _readiness(request, model, True)


def _readiness(request: Request, model: str, loaded: bool) -> Response:
    if loaded:
        return JsonResponse({"name": model, "ready": True})
    error = UnavailableError(
        "model_not_ready", f"The model `{model}` is being loaded, or could not be.", retry_after_s=1.0, field="model"
    )
    return _not_ready(request, error, {"name": model, "ready": False})


def _not_ready(request: Request, error: ModelyardError, more: dict[str, Any]) -> Response:
    """Our error form, with the protocol's own fields beside it."""
    status, _ = render_error(error, "")
    form = {"error": error.message, "code": error.code, "detail": error.detail}
    request_id = getattr(request.state, "request_id", "")
    return JsonResponse(form | more | {"request_id": request_id}, status, error_headers(error))


def _served(services: Services, name: str) -> Version:
    """The version with the largest share of the endpoint."""
    try:
        endpoint = services.endpoints.endpoint(name)
    except NotFoundError:
        raise _no_model(name) from None
    version, _ = max(endpoint.weights, key=lambda weight: weight[1])
    return services.registry.version(endpoint.model, version)


def _no_model(name: str) -> NotFoundError:
    return NotFoundError("model_not_found", f"There is no model `{name}`.", field="model", got=name)


def _version(services: Services, name: str, version: str) -> Version:
    return services.registry.version(_served(services, name).model, version)


def _metadata(services: Services, name: str, version: Version) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "name": name,
        "versions": [known.version for known in services.registry.versions(version.model)],
        "platform": PLATFORMS.get(manifest.format, f"modelyard_{manifest.format}"),
        "inputs": [_tensor(spec) for spec in manifest.signature.inputs],
        "outputs": [_tensor(spec) for spec in manifest.signature.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    """The protocol's fields, and ours for columns and labels where the signature has them."""
    view: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    named = {"columns": list(spec.columns), "labels": list(spec.labels)}
    return view | {name: values for name, values in named.items() if values}
