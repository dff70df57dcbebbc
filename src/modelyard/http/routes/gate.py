"""Deny by default: how a management route is declared, and what every request to one passes first.

A route is declared with the scope it needs, and with what it answers. The gate (key, limits) and the scope are
checked before any of the body is read, and the body is bounded while it is read. An endpoint without a declared scope
cannot become a route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from modelyard.audit.acting import acting
from modelyard.audit.event import Actor
from modelyard.auth.scopes import Scope
from modelyard.auth.table import Principal
from modelyard.core.errors import AuthenticationError, AuthorizationError, LimitError
from modelyard.http.errors import status_of
from modelyard.http.resource.strict import StrictRequest, check_path, check_query, declared_query
from modelyard.http.services import Services

Gate = Callable[[Request], Awaitable[Principal]]
"""Who is calling, once key and limits were checked; raises ModelyardError."""

_NEEDS = "__modelyard_needs__"
_STRICT = "/v1/"
"""Our own routes are strict in all; the Open Inference Protocol's clients may add what they like to a query."""
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Needs:
    """What a route asks of its caller; `scope` None means that anybody may call it."""

    scope: Scope | None
    streams: bool = False
    also: Scope | None = None


def scope(needed: Scope, *, streams: bool = False, also: Scope | None = None) -> Callable[[_Endpoint], _Endpoint]:
    """Declares the scope of an endpoint; `also` is another one that is enough. `streams`: the endpoint reads and
    bounds its body itself."""
    return _declare(Needs(needed, streams, also))


def public(endpoint: _Endpoint) -> _Endpoint:
    """Declares that an endpoint needs no key: health, and what the server is."""
    return _declare(Needs(None))(endpoint)


def _declare(needs: Needs) -> Callable[[_Endpoint], _Endpoint]:
    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _NEEDS, needs)
        return endpoint

    return mark


def needs_of(path: str, endpoint: Callable[..., Any]) -> Needs:
    """What an endpoint declared; TypeError if it declared nothing."""
    needs = getattr(endpoint, _NEEDS, None)
    if not isinstance(needs, Needs):
        raise TypeError(f"The route `{path}` declares no scope; mark its endpoint with scope(...) or public.")
    return needs


@dataclass(frozen=True)
class Answers:
    """What a route promises to answer, as the OpenAPI document says it and the tests check it.

    `form` is the JSON of its good answers (None: another media type, or nobody has said). `statuses` are the good
    ones. `refusals` are statuses beside those that follow from the declaration (key, scope, limits, path, body).
    `tagged`: the answer carries `ETag`; `guarded`: the route reads `If-Match`. `media` are types of other answers.
    `others` are the forms of refusals that say more than every refusal does, by status.
    """

    form: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    refusals: tuple[int, ...] = ()
    tagged: bool = False
    guarded: bool = False
    media: tuple[str, ...] = ()
    others: Mapping[int, type[BaseModel]] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """One route of a table."""

    method: str
    path: str
    endpoint: Callable[..., Any]
    answers: Answers = field(default_factory=Answers)


class RouteTable:
    """The routes of one module, in order."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._routes: list[Declared] = []

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._routes)

    def get(self, path: str, form: type[BaseModel] | None = None, **more: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a GET route; `form` and `more` are the fields of Answers."""
        return self.add("GET", path, Answers(form, **more))

    def post(self, path: str, form: type[BaseModel] | None = None, **more: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a POST route."""
        return self.add("POST", path, Answers(form, **more))

    def put(self, path: str, form: type[BaseModel] | None = None, **more: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a PUT route."""
        return self.add("PUT", path, Answers(form, **more))

    def patch(self, path: str, form: type[BaseModel] | None = None, **more: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a PATCH route."""
        return self.add("PATCH", path, Answers(form, **more))

    def delete(self, path: str, form: type[BaseModel] | None = None, **more: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a DELETE route."""
        return self.add("DELETE", path, Answers(form, **more))

    def add(self, method: str, path: str, answers: Answers) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a route."""

        def take(endpoint: _Endpoint) -> _Endpoint:
            self._routes.append(Declared(method, path, endpoint, answers))
            return endpoint

        return take


class GatedRoute(APIRoute):
    """A route that checks key, limits and scope before it reads a byte of the body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.needs = needs_of(path, endpoint)
        super().__init__(path, endpoint, **options)
        self._declared = declared_query(self.dependant)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the gate."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if self.needs.scope is not None:
                await _admit(request, self.needs.scope, self.needs.also)
            if request.url.path.startswith(_STRICT):
                check_path(request)
                check_query(request, self._declared)
            with acting(_actor(request)):
                if self.needs.streams:
                    return await inner(request)
                return await _strictly(inner, request)

        return handle


async def _admit(request: Request, needed: Scope, also: Scope | None) -> None:
    """Sets `request.state.principal`, or refuses; refusals are counted for the audit log."""
    gate: Gate = request.app.state.gate
    try:
        principal = request.state.principal = await gate(request)
        path = request.path_params
        needed = also if also is not None and also in principal.scopes else needed
        principal.require(needed, path.get("model") or path.get("endpoint"))
    except (AuthenticationError, AuthorizationError, LimitError) as error:
        services: Services = request.app.state.services
        known: Principal | None = getattr(request.state, "principal", None)
        services.refused.note(status_of(error), error.code, known.client if known else "", _address(request))
        raise


def _actor(request: Request) -> Actor:
    """Who changes what this request changes, for the audit log; public routes change nothing."""
    principal: Principal | None = getattr(request.state, "principal", None)
    name, key_id = (f"client:{principal.client}", principal.key_id) if principal else ("nobody", "")
    return Actor(name, key_id, _address(request), getattr(request.state, "request_id", ""))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _strictly(inner: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    strict = StrictRequest(request)
    try:
        return await inner(strict)
    except HTTPException:
        if strict.refused is not None:
            raise strict.refused from None
        raise


def require_every_model(principal: Principal) -> None:
    """For what concerns all models at once (keys): a key that is bound to some models may not."""
    if "*" not in principal.models.patterns:
        raise AuthorizationError(
            "model_not_allowed",
            "This key is bound to some models; this concerns them all.",
            field="model",
            expected="*",
            got=" ".join(principal.models.patterns),
        )


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Wired = Annotated[Services, Depends(_services)]
"""The services of the application."""
Caller = Annotated[Principal, Depends(_caller)]
"""Who is calling; only on routes with a scope."""


class JsonResponse(Response):
    """JSON whose content type is exactly `application/json`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes; numbers and texts as orjson writes them."""
        return orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS)
