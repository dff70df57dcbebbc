"""The management application: every route beside prediction, behind the gate, answering in one error form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

import modelyard
from modelyard.core.errors import ModelyardError
from modelyard.http.errors import error_body, error_headers, forget_frames, status_of
from modelyard.http.openapi import routes as documentation
from modelyard.http.openapi.operations import route_options
from modelyard.http.resource.refusals import http_refusal, validation_refusal
from modelyard.http.routes import audit, keys, me, models, oip, predictions, retention, traffic
from modelyard.http.routes.analytics import figures
from modelyard.http.routes.gate import Gate, GatedRoute, RouteTable, needs_of
from modelyard.http.routes.triton import repository, statistics
from modelyard.http.services import Services
from modelyard.routing.table import RoutingTable

TABLES: tuple[RouteTable, ...] = (
    statistics.routes,  # before a model of the name `stats`
    repository.routes,
    oip.routes,
    models.routes,
    traffic.routes,
    keys.routes,
    me.routes,
    predictions.routes,
    audit.routes,
    retention.routes,
    figures.routes,
    documentation.routes,
)
"""Every management route; the order in which they are tried."""


def management_app(
    services: Services,
    gate: Gate,
    reason: Callable[[], str],
    table: Callable[[], RoutingTable],
    counts: Callable[[], statistics.CountsByVersion] = dict,
) -> FastAPI:
    """The ASGI application. `gate` checks key and limits of a request; `reason` says why this process is
    not ready (empty: it is), `table` what it routes by now, `counts` what was predicted since the start.

    An outer layer may set `scope["state"]["request_id"]`, which every error then carries. Errors of ours never leave
    as anything but `{"error", "code", "detail", "request_id"}`. Raises TypeError for a route without a scope.
    """
    app = FastAPI(
        title="Modelyard",
        version=modelyard.__version__,
        description="From a trained model file to an audited production API.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.services, app.state.gate = services, gate
    app.state.reason, app.state.table, app.state.counts = reason, table, counts
    add_routes(app, TABLES)
    app.add_exception_handler(ModelyardError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    return app


def add_routes(app: FastAPI, tables: Iterable[RouteTable]) -> None:
    """Registers the tables' routes; TypeError for an endpoint that declares no scope."""
    app.router.route_class = GatedRoute
    for table in tables:
        for route in table:
            needs = needs_of(route.path, route.endpoint)
            app.router.add_api_route(
                route.path,
                route.endpoint,
                methods=[route.method],
                tags=[table.tag],
                response_model=None,
                **route_options(route, needs),
            )


def answer_error(request: Request, error: ModelyardError) -> Response:
    """The error as a response."""
    body = error_body(error, request_id_of(request))
    return Response(body, status_of(error), error_headers(error))


def request_id_of(request: Request) -> str:
    """The id that the outer layer gave, else a new one."""
    given: str | None = getattr(request.state, "request_id", None)
    if given is None:
        given = request.state.request_id = uuid4().hex
    return given


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ModelyardError)
    forget_frames(error)
    return answer_error(request, error)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    forget_frames(error)
    return answer_error(request, validation_refusal(error, _body_fields(request)))


def _body_fields(request: Request) -> list[str]:
    """The names that the route's body may have; none where it has no fixed ones."""
    body = getattr(request.scope.get("route"), "body_field", None)
    form = None if body is None else body.field_info.annotation
    return sorted(form.model_fields) if isinstance(form, type) and issubclass(form, BaseModel) else []


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    forget_frames(error)
    allowed = _allowed(request)
    return answer_error(request, http_refusal(error, request.method, request.url.path, allowed))


def _allowed(request: Request) -> list[str]:
    """The methods of all routes whose path matches."""
    methods: set[str] = set()
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods
    return sorted(methods)
