"""What is wrong with a request is named, on every route that takes a body, a query or an entity tag; nothing changes.

The cases come from the OpenAPI document, so that a route added tomorrow is tested tomorrow.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from server import Reply, RunningServer
from test_no_key_no_answer import GUARDED, Route
from trained import infer_body

from modelyard.http.wire import PREDICT_ROUTES

FIELDS = re.compile(r"\{(\w+)\}")
FORM = {"error", "code", "detail", "request_id"}
MALFORMED = (b'{"', b"nope", b"\xff\xfe{}", b'{"client":}', b"[1,]", b"{'client': 1}", b"\x00", b"{}{}", b"NaN")
OF_ANOTHER_KIND = (b"7", b'"text"', b"true", b"null", b"[7]")
STALE = '"00000000000000000000000000000000"'
NO_TAGS = ("unquoted", '"open', "\x80")
ROW = np.ones((1, 16), np.int64)
ROWS: dict[str, Any] = {
    "infer": infer_body(INPUT0=ROW, INPUT1=ROW),
    "predictions": {"items": [{"INPUT0": [1] * 16, "INPUT1": [1] * 16}]},
    "predict": {"instances": [{"INPUT0": [1] * 16, "INPUT1": [1] * 16}]},
    "invocations": {"instances": [{"INPUT0": [1] * 16, "INPUT1": [1] * 16}]},
}
"""A good body of each surface."""


class Bad(NamedTuple):
    """A request with one thing wrong; `field` is what the refusal must name, if it is one thing."""

    kind: str
    route: Route
    body: bytes | None = None
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    statuses: tuple[int, ...] = (400,)
    field: str = ""


@pytest.fixture(scope="module")
def master(fortress: RunningServer) -> dict[str, Any]:
    """A key that may do everything, and its id."""
    return fortress.create_key("bad-input", scopes=["admin", "predict"], rate="1000000/s")


@pytest.fixture(scope="module")
def document(fortress: RunningServer) -> dict[str, Any]:
    """The server's own list of what can be asked."""
    said: dict[str, Any] = fortress.ask("GET", "/openapi.json", key=None).json
    return said


def schema_of(document: dict[str, Any], route: Route) -> dict[str, Any] | None:
    """The schema of a route's JSON object; None if it takes none."""
    operation = document["paths"].get(route.path, {}).get(route.method.lower(), {})
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    while schema is not None and "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema if schema and "properties" in schema else None


def wrong_of(schema: dict[str, Any]) -> Any:
    """A value that the property cannot have; None if it may be anything."""
    kinds = {part.get("type") for part in schema.get("anyOf", [schema])}
    if kinds == {None}:
        return None
    return 7 if "object" in kinds or "array" in kinds else {"wrong": {}}


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The fields that must be there, with the examples of the document."""
    found = {}
    for name in schema.get("required", []):
        found[name] = schema["properties"][name].get("examples", ["x"])[0]
    return found


def bad_bodies(document: dict[str, Any], route: Route) -> Iterator[Bad]:
    """Malformed, of another kind, with a field twice, an unknown one, each field of a wrong type, each left out."""
    schema = schema_of(document, route)
    if schema is None:
        return
    good = example_of(document, schema)
    yield from (Bad("malformed", route, body) for body in MALFORMED)
    yield from (Bad("another kind", route, body) for body in OF_ANOTHER_KIND)
    name = next(iter(schema["properties"]))
    yield Bad("field twice", route, b'{"%b":1,"%b":1}' % (name.encode(), name.encode()))
    yield Bad("unknown field", route, json.dumps({**good, "surprise": 1}).encode(), field="surprise")
    for name, one in schema["properties"].items():
        if (wrong := wrong_of(one)) is not None:
            yield Bad("wrong type", route, json.dumps({**good, name: wrong}).encode(), field=name)
    for name in good:
        rest = {other: value for other, value in good.items() if other != name}
        yield Bad("field missing", route, json.dumps(rest).encode(), field=name)


def bad_predictions(route: Route) -> Iterator[Bad]:
    """The same for the predict routes, whose bodies are no object of the document."""
    good = ROWS[re.split(r"[/:]", route.path)[-1]]
    (name,) = (name for name in good if name in ("inputs", "items", "instances"))
    yield from (Bad("malformed", route, body) for body in MALFORMED)
    yield from (Bad("another kind", route, body) for body in OF_ANOTHER_KIND)
    yield Bad("field twice", route, b'{"%b":[],"%b":[]}' % (name.encode(), name.encode()))
    for wrong in (7, "text", None, {"wrong": 1}, []):
        yield Bad("wrong type", route, json.dumps({name: wrong}).encode())
    if name != "items":  # there it is the item's error, beside the answers of others
        yield Bad("wrong type", route, json.dumps({name: [7]}).encode())
    yield Bad("field missing", route, b"{}")


def cases(document: dict[str, Any], route: Route, tagged: bool) -> Iterator[Bad]:
    """Everything that can be wrong with a request of this route beside its key and its names."""
    if route.path in PREDICT_ROUTES:
        yield from bad_predictions(route)
        return
    yield from bad_bodies(document, route)
    if not route.path.startswith("/v2"):  # its clients may add what they like to a query
        yield Bad("unknown parameter", route, query="surprise=1", field="surprise")
    if tagged:
        good = json.dumps(example_of(document, schema_of(document, route) or {})).encode()
        yield Bad("stale tag", route, good, headers=(("if-match", STALE),), statuses=(412,), field="if-match")
        yield from (Bad("no tag", route, good, headers=(("if-match", tag),), field="if-match") for tag in NO_TAGS)


def send(fortress: RunningServer, bad: Bad, key: dict[str, Any]) -> Reply:
    names = {"model": "simple", "version": "1", "endpoint": "simple", "id": key["id"], "client": "bad-input"}
    target = FIELDS.sub(lambda field: names.get(field[1], "x"), bad.route.path)
    if bad.route.path == "/invocations":
        target += "?model=simple"
    if bad.query:
        target += ("&" if "?" in target else "?") + bad.query
    return fortress.ask(bad.route.method, target, bad.body, key=key["key"], headers=dict(bad.headers))


def state(fortress: RunningServer) -> list[bytes]:
    paths = ("/v1/models", "/v1/endpoints/simple/traffic", "/v1/audit/head", "/v1/predictions/count?status=2xx")
    return [fortress.ask("GET", path).body for path in paths]


def test_what_is_wrong_is_named(fortress: RunningServer, master: dict[str, Any], document: dict[str, Any]) -> None:
    """Every case of every guarded route: 400 (412 for a stale tag) in our form, naming the field where it is one; not
    a model, a key, a share or an audit event is more or less afterwards. How many there were is printed by kind."""
    before, counted, wrong = state(fortress), Counter[str](), []
    routes: dict[str, set[str]] = {}
    for route in GUARDED:
        operation = document["paths"].get(route.path, {}).get(route.method.lower(), {})
        tagged = any(given["name"].lower() == "if-match" for given in operation.get("parameters", []))
        for bad in cases(document, route, tagged):
            reply = send(fortress, bad, master)
            counted[bad.kind] += 1
            routes.setdefault(bad.kind, set()).add(f"{route.method} {route.path}")
            said = reply.json if reply.status >= 400 else {}
            fits = reply.status in bad.statuses and set(said) == FORM
            named = not bad.field or bad.field in json.dumps(said.get("detail", {}))
            if not (fits and named):
                wrong.append((bad.kind, route.method, route.path, bad.body, reply.status, reply.body[:200]))
    print("bad input: " + ", ".join(f"{kind} {n} on {len(routes[kind])} routes" for kind, n in counted.items()))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(routes["malformed"]) >= 12
    assert state(fortress) == before
