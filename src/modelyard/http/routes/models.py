"""Models and versions: read, and publish by streaming raw bytes (STORE-1, STORE-3)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from modelyard.auth.scopes import Scope
from modelyard.core.errors import InvalidRequestError, NotFoundError
from modelyard.http.forms.loads import loads_view
from modelyard.http.forms.status import model_status, version_status
from modelyard.http.forms.views import model_summaries, model_view, version_summary, version_view
from modelyard.http.resource.answers import (
    ModelsAnswer,
    ModelShownAnswer,
    PublishedAnswer,
    RevivedAnswer,
    VersionsAnswer,
    VersionShownAnswer,
)
from modelyard.http.resource.etags import etag_of, tagged
from modelyard.http.resource.paging import page_answer, page_of
from modelyard.http.resource.upload import publish_upload, receive_upload
from modelyard.http.routes.asked import ListQuery, ModelName, VersionName
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, scope
from modelyard.http.routes.oip import Table
from modelyard.http.services import Services, revive, unhealthy_among
from modelyard.models.ports import Version, holder
from modelyard.models.signing.trusted import trusted_ids
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable

routes = RouteTable("models")


@routes.get("/v1/models", ModelsAnswer)
@scope(Scope.ADMIN)
def list_models(request: Request, services: Wired, caller: Caller, asked: Annotated[ListQuery, Query()]) -> Response:
    """The models that this key may see, by name."""
    versions = [version for version in services.registry.versions() if caller.models.allows(version.model)]
    found = model_summaries(versions, services.endpoints.endpoints(), unhealthy_among(services, versions))
    page = page_of(found, "models", lambda model: (model["name"],), asked.limit, asked.cursor)
    return page_answer(request, "models", page.elements, page.next_cursor)


@routes.get("/v1/models/{model}", ModelShownAnswer, tagged=True)
@scope(Scope.ADMIN, also=Scope.PREDICT)
def show_model(request: Request, services: Wired, table: Table, caller: Caller, model: ModelName) -> Response:
    """One model, its versions and the endpoints that serve it. A key that may only predict learns whether it answers,
    as TensorFlow Serving and KServe's V1 protocol say it; an administrator's learns that too."""
    if Scope.ADMIN not in caller.scopes:
        return _status(request, model, model_status(table, model, _endpoint(table, model).model))
    versions = services.registry.versions(model)
    view = model_view(model, versions, services.endpoints.endpoints(), unhealthy_among(services, versions))
    view |= model_status(table, model, model)
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


@routes.get("/v1/models/{model}/versions/{version}", VersionShownAnswer, tagged=True)
@scope(Scope.ADMIN, also=Scope.PREDICT)
def show_version(
    request: Request, services: Wired, table: Table, caller: Caller, model: ModelName, version: VersionName
) -> Response:
    """All that is known of a version: files with SHA-256, signature, example, metrics, provenance; how it was loaded
    in each worker of this host, step by step. A key that may only predict learns whether it answers, as for a model."""
    if Scope.ADMIN not in caller.scopes:
        known = services.registry.version(_endpoint(table, model).model, version)
        return _status(request, model, version_status(table, known.model, version))
    found = services.registry.version(model, version)
    view = version_view(found, _trusted(services)) | version_status(table, model, version)
    view["held_by"] = holder(found.manifest, services.settings)
    view["loads"] = loads_view(services.loads, model, version)
    return tagged(request, JsonResponse(view), etag_of(view))


def _status(request: Request, name: str, said: dict[str, Any]) -> Response:
    view = {"name": name, **said}
    return tagged(request, JsonResponse(view), etag_of(view))


def _endpoint(table: RoutingTable, name: str) -> Endpoint:
    endpoint = table.endpoints.get(name)
    if endpoint is None:
        raise NotFoundError("model_not_found", f"There is no model `{name}`.", field="model", got=name)
    return endpoint


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


def _trusted(services: Services) -> frozenset[str]:
    return trusted_ids(services.settings.models.trusted_signers)


async def _publish(request: Request, services: Services, model: str, version: str | None) -> Response:
    async with receive_upload(request, services.settings) as upload:
        published = await run_in_threadpool(publish_upload, services, upload, model, version)
    view = version_view(published.version, _trusted(services)) | {"created": published.created}
    return JsonResponse(view, 201 if published.created else 200)
