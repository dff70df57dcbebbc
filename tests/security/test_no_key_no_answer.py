"""No key, no answer (P7, S1): every route that is declared, with every kind of key that must not open it.

The cases come from the route tables themselves, so that a route added tomorrow is tested tomorrow.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest
from server import Reply, RunningServer, until

from modelyard.auth.keys import new_key
from modelyard.auth.scopes import IMPLIED, Scope
from modelyard.http.management import TABLES
from modelyard.http.routes.gate import _NEEDS
from modelyard.http.wire import PREDICT_ROUTES

PUBLIC = {
    *(
        ("GET", path)
        for path in ("/", "/v2", "/v2/", "/ping", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/docs")
    ),
    *(("GET", f"/docs/{name}") for name in ("start.js", "swagger-ui-bundle.js", "swagger-ui.css")),
}
"""What anybody may ask; a longer list is a decision, not an accident."""
FILTERED = {
    ("GET", "/v1/models"),
    ("GET", "/v1/endpoints"),
    ("GET", "/v1/me"),
    ("POST", "/v1/outcomes"),
    ("GET", "/v2/models/stats"),
    ("POST", "/v2/repository/index"),
}
"""Lists that show a bound key what it may see, or do what it may do: 200, without the others."""
HIDDEN = {
    ("GET", "/v1/predictions/{id}"),
    ("GET", "/v1/predictions/{id}/outcomes"),
    ("POST", "/v1/predictions/{id}/outcome"),
}
"""What a bound key may not see does not exist for it: 404, as for an id that nobody gave."""
BODIES = {
    "/v1/keys": b'{"client": "intruder"}',
    "/v1/predictions/{id}/outcome": b'{"value": 1}',
    "/v1/outcomes": b'[{"id": "x", "value": 1}]',
    "/v1/retention/holds": b'{"reason": "a case"}',
    "/v1/retention/erasures": b'{"subject": "nobody"}',
}
"""Good bodies, where who may come in depends on more than the path."""
FORM = {"error", "code", "detail", "request_id"}


@dataclass(frozen=True)
class Route:
    """A declared route and the scope that it asks for."""

    method: str
    path: str
    scope: Scope | None
    also: Scope | None = None

    def target(self, prediction: str) -> str:
        """The path with names of things that exist."""
        names = {"model": "simple", "version": "1", "endpoint": "simple", "id": prediction}
        return re.sub(r"\{(\w+)\}", lambda field: names.get(field[1], "x"), self.path)


ROUTES = [
    Route(declared.method, declared.path, needs.scope, needs.also)
    for table in TABLES
    for declared in table
    for needs in (getattr(declared.endpoint, _NEEDS),)
] + [Route("POST", path, Scope.PREDICT) for path in PREDICT_ROUTES]
GUARDED = [route for route in ROUTES if route.scope is not None]


@dataclass(frozen=True)
class Keys:
    """One key of each kind, and the id of a prediction that exists."""

    by_kind: dict[str, str | None]
    by_scope: dict[str, str]
    elsewhere: dict[str, str]
    prediction: str


@pytest.fixture(scope="module")
def keys(fortress: RunningServer) -> Keys:
    """Keys of all scopes that are revoked or expired; keys of one scope each; keys of one scope for another model."""
    scopes = [scope.value for scope in Scope]
    unlimited = {"rate": "1000000/s"}
    revoked = fortress.create_key("revoked", scopes=scopes, **unlimited)
    assert fortress.ask("DELETE", f"/v1/keys/{revoked['id']}").status == 200
    expired = fortress.create_key("expired", scopes=scopes, expires="1s", **unlimited)["key"]
    until(lambda: fortress.ask("GET", "/v1/keys", key=expired).status == 401, what="the expiry")
    good = fortress.create_key("whole", scopes=scopes, **unlimited)["key"]
    return Keys(
        {
            "none": None,
            "empty": " ",
            "wrong": new_key().text,
            "malformed": "mdy_not_a_key",
            "altered": good[:-1] + ("0" if good[-1] != "0" else "1"),
            "other case": good.swapcase(),
            "not ascii": "mdy_\xff\xfe",
            "very long": "k" * 8000,
            "revoked": revoked["key"],
            "expired": expired,
        },
        {scope: fortress.create_key(f"only-{scope}", scopes=[scope], **unlimited)["key"] for scope in scopes},
        {s: fortress.create_key(f"else-{s}", scopes=[s], models=["other*"], **unlimited)["key"] for s in scopes},
        fortress.ask("GET", "/v1/predictions?limit=1").json["predictions"][0]["id"],
    )


def ask(fortress: RunningServer, route: Route, target: str, key: str | None, sent: bytes = b"{not json") -> Reply:
    """The request with a body that is no JSON: whoever may not come in is told so before the body is looked at."""
    body = None if route.method in ("GET", "DELETE") else sent
    return fortress.ask(route.method, target, body, key=key)


def assert_refused(reply: Reply, *statuses: int) -> None:
    assert reply.status in statuses, (reply.status, reply.body[:300])
    assert reply.headers["content-type"] == "application/json"
    said = json.loads(reply.body)
    assert set(said) == FORM
    assert said["request_id"] == reply.headers["x-request-id"]
    assert "x-prediction-id" not in reply.headers


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_the_public_routes_are_these() -> None:
    """Health and what the server is: nothing else is open, and every other route declares a scope."""
    assert {(route.method, route.path) for route in ROUTES if route.scope is None} == PUBLIC
    assert len(GUARDED) >= 20


@pytest.mark.parametrize("route", GUARDED, ids=named)
def test_no_key_no_answer(fortress: RunningServer, keys: Keys, route: Route) -> None:
    """401 in our form without a key and with one that is wrong, malformed, altered, revoked or expired; also with the
    predict routes' percent-encoded form."""
    target = route.target(keys.prediction)
    for kind, key in keys.by_kind.items():
        for written in (target, target.replace("simple", "s%69mple")):
            reply = ask(fortress, route, written, key)
            assert_refused(reply, 401)
            assert reply.headers["www-authenticate"] == "Bearer", kind


@pytest.mark.parametrize("route", GUARDED, ids=named)
def test_other_scopes(fortress: RunningServer, keys: Keys, route: Route) -> None:
    """403 with a key of any scope that is not, and does not bring, the route's; the right scope passes the gate."""
    target = route.target(keys.prediction)
    assert route.scope is not None
    for scope, key in keys.by_scope.items():
        if scope in (route.scope, route.also) or route.scope in IMPLIED.get(Scope(scope), ()):
            continue
        for written in (target, target.replace("simple", "s%69mple")):
            assert_refused(ask(fortress, route, written, key), 403)
    if route.method != "DELETE":
        passed = ask(fortress, route, target, keys.by_scope[route.scope])
        assert passed.status not in (401, 403), passed.body
        assert passed.status < 500


@pytest.mark.parametrize("route", GUARDED, ids=named)
def test_other_models(fortress: RunningServer, keys: Keys, route: Route) -> None:
    """A key of the right scope, bound to other models, learns nothing of this one: 403, a list without it, or the
    same 404 as for an id that nobody gave."""
    assert route.scope is not None
    key = keys.elsewhere[route.scope]
    target = route.target(keys.prediction)
    reply = ask(fortress, route, target, key, BODIES.get(route.path, b"{}"))
    if (route.method, route.path) in FILTERED:
        assert reply.status == 200
        assert b"simple" not in reply.body
    elif (route.method, route.path) in HIDDEN:
        assert_refused(reply, 404)
        made_up = "0" * len(keys.prediction)
        sent = BODIES.get(route.path, b"{}")
        other = ask(fortress, route, route.target(made_up), key, sent).body.replace(made_up.encode(), b"ID")
        said, never = (json.loads(b) for b in (reply.body.replace(keys.prediction.encode(), b"ID"), other))
        assert {**said, "request_id": ""} == {**never, "request_id": ""}
    else:
        assert_refused(reply, 403)


@pytest.mark.parametrize("route", GUARDED, ids=named)
def test_other_methods(fortress: RunningServer, keys: Keys, route: Route) -> None:
    """No method opens a path without a key: HEAD, OPTIONS, TRACE and made-up ones are refused, never a 2xx or 5xx."""
    target = route.target(keys.prediction)
    for method in ("HEAD", "OPTIONS", "PATCH", "PUT", "DELETE", "POST", "TRACE"):
        reply = fortress.ask(method, target, None, key=None)
        assert 400 <= reply.status < 500, (method, reply.status)


def test_keys_in_other_places_count_for_nothing(fortress: RunningServer, keys: Keys) -> None:
    """A key in the query, a cookie or another scheme does not authenticate."""
    good = keys.by_scope["admin"]
    for path, headers in (
        (f"/v1/models?x-api-key={good}", {}),
        (f"/v1/models?key={good}", {}),
        ("/v1/models", {"cookie": f"x-api-key={good}"}),
        ("/v1/models", {"authorization": f"Basic {good}"}),
        ("/v1/models", {"authorization": good}),
        ("/v1/models", {"proxy-authorization": f"Bearer {good}"}),
    ):
        assert_refused(fortress.ask("GET", path, key=None, headers=headers), 401)


def test_paths_that_look_like_others(fortress: RunningServer) -> None:
    """Doubled slashes, dots, case and trailing slashes open nothing."""
    paths = (
        "//v1/keys", "/v1//keys", "/V1/keys", "/v1/keys/", "/v2/../v1/keys", "/v2/health/live/../../../v1/keys",
        "/v1/keys%00", "/%76%31/keys", "/v1;x/keys", "/docs/", "/docs/../v1/keys", "/openapi.json/", "/redoc",
    )  # fmt: skip
    for path in paths:
        reply = fortress.ask("GET", path, key=None)
        assert reply.status in (400, 401, 404), (path, reply.status)
        assert set(reply.json) == FORM
