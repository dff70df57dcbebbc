"""`/docs` and the OpenAPI documents. The page and the general document are for anybody: nothing of the data is in
them. Models are in the documents that are asked for with a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ConfigDict

from modelyard.auth.scopes import Scope
from modelyard.auth.table import Principal
from modelyard.core.errors import NotFoundError
from modelyard.http.openapi.document import general_document, model_document, with_models
from modelyard.http.resource.answers import Answer
from modelyard.http.routes.asked import ModelName
from modelyard.http.routes.gate import Gate, JsonResponse, RouteTable, Wired, public, scope
from modelyard.http.services import Services
from modelyard.http.wire import presented_key
from modelyard.models.ports import Version

routes = RouteTable("documentation")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, no inline script. Swagger UI writes styles into elements."""
PAGE_HEADERS: Mapping[str, str] = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
ASSET_MAX_AGE_S = 3600
JAVASCRIPT = "text/javascript; charset=utf-8"
STYLES = "text/css; charset=utf-8"


class Document(Answer):
    """An OpenAPI 3.1 document."""

    model_config = ConfigDict(frozen=True, extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


@routes.get("/docs", media=("text/html",))
@public
def docs_page() -> Response:
    """The page that shows this document; it loads nothing from elsewhere."""
    return Response(_own("page.html"), media_type="text/html", headers=dict(PAGE_HEADERS))


@routes.get("/docs/start.js", media=("text/javascript",))
@public
def docs_script() -> Response:
    """What the page runs."""
    return _asset(_own("start.js"), JAVASCRIPT)


@routes.get("/docs/swagger-ui-bundle.js", media=("text/javascript",))
@public
def docs_library() -> Response:
    """Swagger UI, from the installed package."""
    return _asset(_packaged("swagger-ui-bundle.js"), JAVASCRIPT)


@routes.get("/docs/swagger-ui.css", media=("text/css",))
@public
def docs_styles() -> Response:
    """Its styles."""
    return _asset(_packaged("swagger-ui.css"), STYLES)


@routes.get("/openapi.json", Document, refusals=(401, 403, 429, 503))
@public
async def openapi(request: Request, services: Wired) -> Response:
    """This document. With a key that may predict or manage: the routes of its models too, each with its own request
    schema and an example."""
    document = _general(request)
    if presented_key(request.headers.raw) is None:
        return JsonResponse(document)
    gate: Gate = request.app.state.gate
    caller = await gate(request)
    if not caller.scopes & {Scope.PREDICT, Scope.ADMIN}:
        caller.require(Scope.PREDICT)
    whole = await run_in_threadpool(lambda: with_models(document, _served(services, caller), services.settings))
    return JsonResponse(whole, headers={"cache-control": "private, no-store"})


@routes.get("/v1/models/{model}/openapi.json", Document)
@scope(Scope.PREDICT)
def model_openapi(request: Request, services: Wired, model: ModelName) -> Response:
    """How to ask one model: its request's schema on each predict route, with an example that it answers."""
    return JsonResponse(model_document(model, served_version(services, model), services.settings, _root_path(request)))


def served_version(services: Services, name: str) -> Version:
    """The version of an endpoint that gets the most traffic; NotFoundError("model_not_found")."""
    try:
        endpoint = services.endpoints.endpoint(name)
    except NotFoundError:
        raise NotFoundError("model_not_found", f"There is no model `{name}`.", field="model", got=name) from None
    version, _ = max(endpoint.weights, key=lambda weight: weight[1])
    return services.registry.version(endpoint.model, version)


def _served(services: Services, caller: Principal) -> Iterator[tuple[str, Version]]:
    for endpoint in services.endpoints.endpoints():
        if caller.models.allows(endpoint.name):
            yield endpoint.name, served_version(services, endpoint.name)


def _general(request: Request) -> dict[str, Any]:
    """Made once for an application: routes do not change while it runs."""
    state = request.app.state
    if not hasattr(state, "openapi_document"):
        state.openapi_document = general_document(request.app.router.routes, _root_path(request))
    document: dict[str, Any] = state.openapi_document
    return document


def _root_path(request: Request) -> str:
    services: Services = request.app.state.services
    return str(getattr(services.settings.http, "root_path", "") or "")


def _asset(content: bytes, media_type: str) -> Response:
    headers = {"cache-control": f"public, max-age={ASSET_MAX_AGE_S}", "x-content-type-options": "nosniff"}
    return Response(content, media_type=media_type, headers=headers)


@cache
def _own(name: str) -> bytes:
    return (files("modelyard.http.openapi") / name).read_bytes()


@cache
def _packaged(name: str) -> bytes:
    """A file of the package fastapi_offline, which brings Swagger UI; none of its code is run."""
    found = find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "static" / name).read_bytes()
