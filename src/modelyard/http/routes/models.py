"""Models and versions: read, and publish by streaming raw bytes (STORE-1, STORE-3)."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from modelyard.auth.scopes import Scope
from modelyard.http.forms.views import model_summaries, model_view, version_summary, version_view
from modelyard.http.routes.asked import ModelName, VersionName
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, scope
from modelyard.http.routes.upload import publish_upload, receive_upload
from modelyard.http.services import Services

routes = RouteTable("models")


@routes.get("/v1/models")
@scope(Scope.ADMIN)
def list_models(services: Wired, caller: Caller) -> Response:
    """The models that this key may see, by name."""
    versions = [version for version in services.registry.versions() if caller.models.allows(version.model)]
    return JsonResponse({"models": model_summaries(versions, services.endpoints.endpoints())})


@routes.get("/v1/models/{model}")
@scope(Scope.ADMIN)
def show_model(services: Wired, model: ModelName) -> Response:
    """One model, its versions and the endpoints that serve it."""
    return JsonResponse(model_view(model, services.registry.versions(model), services.endpoints.endpoints()))


@routes.get("/v1/models/{model}/versions")
@scope(Scope.ADMIN)
def list_versions(services: Wired, model: ModelName) -> Response:
    """The versions of a model, oldest first."""
    return JsonResponse({"versions": [version_summary(version) for version in services.registry.versions(model)]})


@routes.get("/v1/models/{model}/versions/{version}")
@scope(Scope.ADMIN)
def show_version(services: Wired, model: ModelName, version: VersionName) -> Response:
    """All that is known of a version: files with SHA-256, signature, example, metrics, provenance."""
    return JsonResponse(version_view(services.registry.version(model, version)))


@routes.post("/v1/models/{model}/versions")
@scope(Scope.ADMIN, streams=True)
async def publish_next(request: Request, services: Wired, model: ModelName) -> Response:
    """Publishes the body as the next version. `application/octet-stream` is one file, named by
    `x-modelyard-filename`; `application/x-tar` a folder, which may hold `modelyard.json`."""
    return await _publish(request, services, model, None)


@routes.put("/v1/models/{model}/versions/{version}")
@scope(Scope.ADMIN, streams=True)
async def publish_version(request: Request, services: Wired, model: ModelName, version: VersionName) -> Response:
    """Publishes the body as this version: 201 when it is new, 200 when the same bytes are there, 409 when others."""
    return await _publish(request, services, model, version)


async def _publish(request: Request, services: Services, model: str, version: str | None) -> Response:
    async with receive_upload(request, services.settings) as upload:
        published = await run_in_threadpool(publish_upload, services, upload, model, version)
    view = version_view(published.version) | {"created": published.created}
    return JsonResponse(view, 201 if published.created else 200)
