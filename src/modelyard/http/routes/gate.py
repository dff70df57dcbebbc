"""Deny by default: how a management route is declared, and what every request to one passes first.

A route is declared with the scope it needs. The gate (key, limits) and the scope are checked before any of the body
is read, and the body is bounded while it is read. An endpoint without a declared scope cannot become a route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from modelyard.auth.scopes import Scope
from modelyard.auth.table import Principal
from modelyard.core.errors import AuthorizationError, TooLargeError
from modelyard.http.services import Services

Gate = Callable[[Request], Awaitable[Principal]]
"""Who is calling, once key and limits were checked; raises ModelyardError."""

MAX_JSON_BODY_BYTES = 1024 * 1024
"""Largest body of a management request; versions are streamed and have a bound of their own."""

_NEEDS = "__modelyard_needs__"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class Needs:
    """What a route asks of its caller; `scope` None means that anybody may call it."""

    scope: Scope | None
    streams: bool = False


def scope(needed: Scope, *, streams: bool = False) -> Callable[[_Endpoint], _Endpoint]:
    """Declares the scope of an endpoint. `streams`: the endpoint reads and bounds its body itself."""
    return _declare(Needs(needed, streams))


def public(endpoint: _Endpoint) -> _Endpoint:
    """Declares that an endpoint needs no key: health, and what the server is."""
    return _declare(Needs(None))(endpoint)


def _declare(needs: Needs) -> Callable[[_Endpoint], _Endpoint]:
    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _NEEDS, needs)
        return endpoint

    return mark


@dataclass(frozen=True)
class Declared:
    """One route of a table."""

    method: str
    path: str
    endpoint: Callable[..., Any]


class RouteTable:
    """The routes of one module, in order."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._routes: list[Declared] = []

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._routes)

    def get(self, path: str) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a GET route."""
        return self.add("GET", path)

    def post(self, path: str) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a POST route."""
        return self.add("POST", path)

    def put(self, path: str) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a PUT route."""
        return self.add("PUT", path)

    def delete(self, path: str) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a DELETE route."""
        return self.add("DELETE", path)

    def add(self, method: str, path: str) -> Callable[[_Endpoint], _Endpoint]:
        """Adds a route."""

        def take(endpoint: _Endpoint) -> _Endpoint:
            self._routes.append(Declared(method, path, endpoint))
            return endpoint

        return take


class GatedRoute(APIRoute):
    """A route that checks key, limits and scope before it reads a byte of the body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        needs = getattr(endpoint, _NEEDS, None)
        if not isinstance(needs, Needs):
            raise TypeError(f"The route `{path}` declares no scope; mark its endpoint with scope(...) or public.")
        self.needs = needs
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the gate."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if self.needs.scope is not None:
                request.state.principal = await _admit(request, self.needs.scope)
            if self.needs.streams:
                return await inner(request)
            return await _bounded(inner, request)

        return handle


async def _admit(request: Request, needed: Scope) -> Principal:
    gate: Gate = request.app.state.gate
    principal = await gate(request)
    path = request.path_params
    principal.require(needed, path.get("model") or path.get("endpoint"))
    return principal


class _BodyBound:
    """An ASGI `receive` that refuses to hand out more than a bound; remembers that it did."""

    def __init__(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
        self._receive = receive
        self._size_bytes = 0
        self.exceeded: TooLargeError | None = None

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._size_bytes += len(message.get("body", b""))
        if self._size_bytes > MAX_JSON_BODY_BYTES:
            self.exceeded = body_too_large(MAX_JSON_BODY_BYTES, self._size_bytes, "body")
            raise self.exceeded
        return message


async def _bounded(inner: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    bound = _BodyBound(request.receive)
    try:
        return await inner(Request(request.scope, bound))
    except HTTPException:
        if bound.exceeded is not None:
            raise bound.exceeded from None
        raise


def body_too_large(bound_bytes: int, got_bytes: int, field: str) -> TooLargeError:
    """A body over its bound; `field` names the setting, or the body."""
    return TooLargeError(
        "body_too_large",
        f"The body is larger than {bound_bytes} bytes.",
        field=field,
        expected=f"at most {bound_bytes} bytes",
        got=got_bytes,
    )


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
