"""Models and versions: read, and publish by streaming raw bytes (STORE-1, STORE-3)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from modelyard.auth.scopes import Scope
from modelyard.core.errors import InvalidRequestError
from modelyard.http.forms.views import model_summaries, model_view, version_summary, version_view
from modelyard.http.resource.answers import (
    ModelAnswer,
    ModelsAnswer,
    PublishedAnswer,
    RevivedAnswer,
    VersionAnswer,
    VersionsAnswer,
)
from modelyard.http.resource.etags import etag_of, tagged
from modelyard.http.resource.paging import page_answer, page_of
from modelyard.http.resource.upload import publish_upload, receive_upload
from modelyard.http.routes.asked import ListQuery, ModelName, VersionName
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, scope
from modelyard.http.services import Services, revive, unhealthy_among
from modelyard.models.ports import Version

routes = RouteTable("models")


@routes.get("/v1/models", ModelsAnswer)
@scope(Scope.ADMIN)
def list_models(request: Request, services: Wired, caller: Caller, asked: Annotated[ListQuery, Query()]) -> Response:
    """The models that this key may see, by name."""
    versions = [version for version in services.registry.versions() if caller.models.allows(version.model)]
    found = model_summaries(versions, services.endpoints.endpoints(), unhealthy_among(services, versions))
    page = page_of(found, "models", lambda model: (model["name"],), asked.limit, asked.cursor)
    return page_answer(request, "models", page.elements, page.next_cursor)


@routes.get("/v1/models/{model}", ModelAnswer, tagged=True)
@scope(Scope.ADMIN)
def show_model(request: Request, services: Wired, model: ModelName) -> Response:
    """One model, its versions and the endpoints that serve it."""
    versions = services.registry.versions(model)
    view = model_view(model, versions, services.endpoints.endpoints(), unhealthy_among(services, versions))
    return tagged(request, JsonResponse(view), etag_of(view))


@routes.get("/v1/models/{model}/versions", VersionsAnswer)
@scope(Scope.ADMIN)
def list_versions(
    request: Request, services: Wired, model: ModelName, asked: Annotated[ListQuery, Query()]
) -> Response:
    """The versions of a model, oldest first."""
    known = services.registry.versions(model)
    # In the order of publication, which no field of a version tells: its place is its number in it.
    page = page_of(list(enumerate(known)), f"versions of {model}", _place, asked.limit, asked.cursor)
    views = [version_summary(version) for _, version in page.elements]
    return page_answer(request, "versions", views, page.next_cursor)


def _place(numbered: tuple[int, Version]) -> tuple[float]:
    return (float(numbered[0]),)


@routes.get("/v1/models/{model}/versions/{version}", VersionAnswer, tagged=True)
@scope(Scope.ADMIN)
def show_version(request: Request, services: Wired, model: ModelName, version: VersionName) -> Response:
    """All that is known of a version: files with SHA-256, signature, example, metrics, provenance."""
    view = version_view(services.registry.version(model, version))
    return tagged(request, JsonResponse(view), etag_of(view))


@routes.post("/v1/models/{model}/versions", PublishedAnswer, statuses=(201, 200), refusals=(409, 422))
@scope(Scope.ADMIN, streams=True)
async def publish_next(request: Request, services: Wired, model: ModelName) -> Response:
    """Publishes the body as the next version. `application/octet-stream` is one file, named by
    `x-modelyard-filename`; `application/x-tar` a folder, which may hold `modelyard.json`."""
    return await _publish(request, services, model, None)


@routes.put("/v1/models/{model}/versions/{version}", PublishedAnswer, statuses=(201, 200), refusals=(409, 422))
@scope(Scope.ADMIN, streams=True)
async def publish_version(request: Request, services: Wired, model: ModelName, version: VersionName) -> Response:
    """Publishes the body as this version: 201 when it is new, 200 when the same bytes are there, 409 when others.
    A version never changes, so `If-Match` has nothing to compare and is refused."""
    if "if-match" in request.headers:
        raise InvalidRequestError(
            "parameter_invalid", "A version never changes: there is nothing to match.", field="if-match",
            expected="no If-Match", got=request.headers["if-match"][:200],
        )  # fmt: skip
    return await _publish(request, services, model, version)


@routes.post("/v1/models/{model}/versions/{version}/revive", RevivedAnswer)
@scope(Scope.ADMIN)
def revive_version(services: Wired, model: ModelName, version: VersionName) -> Response:
    """Loads a version again that was taken out because workers died in its run; `revived` false: it was not out."""
    return JsonResponse(revive(services, model, version))


async def _publish(request: Request, services: Services, model: str, version: str | None) -> Response:
    async with receive_upload(request, services.settings) as upload:
        published = await run_in_threadpool(publish_upload, services, upload, model, version)
    view = version_view(published.version) | {"created": published.created}
    return JsonResponse(view, 201 if published.created else 200)
