"""Hostile names at every place of every route (S9): refused in our form, and nothing is read or written elsewhere."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hostile import EXISTING_ODDLY, NAMES, segments
from server import RunningServer
from test_no_key_no_answer import BODIES, GUARDED, Route, named

FIELDS = re.compile(r"\{(\w+)\}")
GOOD = {"model": "simple", "endpoint": "simple", "version": "1"}
NAMED = [route for route in GUARDED if "{" in route.path]
REFUSALS = {400, 404, 414, 431}
FORM = {"error", "code", "detail", "request_id"}


@pytest.fixture(scope="module")
def master(fortress: RunningServer) -> str:
    """A key that may do everything: nothing but the name is wrong."""
    made: str = fortress.create_key("names", scopes=["admin", "predict"], rate="1000000/s")["key"]
    return made


def targets(route: Route, segment: str) -> Iterator[str]:
    """The route's path with the segment at each place in turn."""
    fields = FIELDS.findall(route.path)
    for hostile in fields:
        yield FIELDS.sub(lambda field, at=hostile: segment if field[1] == at else GOOD.get(field[1], "x"), route.path)


def send(connection: http.client.HTTPConnection, route: Route, target: str, key: str) -> tuple[int, bytes]:
    """The target exactly as it is written; `http.client` would refuse some of them."""
    connection.putrequest(route.method, target, skip_accept_encoding=True)
    body = BODIES.get(route.path, b"{}") if route.method in ("POST", "PUT", "PATCH") else b""
    for name, value in (("x-api-key", key), ("content-length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def state(server: RunningServer) -> tuple[set[Path], bytes, bytes]:
    """All files beside the data folder, and what the server knows."""
    beside = {path for path in server.data.parent.rglob("*") if server.data not in path.parents}
    models = server.ask("GET", "/v1/models").body
    return beside, models, server.ask("GET", "/v1/endpoints/simple/traffic").body


@pytest.mark.parametrize("route", NAMED, ids=named)
def test_hostile_names_are_refused(fortress: RunningServer, master: str, route: Route) -> None:
    """Every name that nothing can have, and every broken encoding, at each place of the path: 400 or 404 in our form,
    never a 2xx, never a 5xx; afterwards everything is as before."""
    before = state(fortress)
    sent = 0
    with closing(http.client.HTTPConnection("127.0.0.1", fortress.port, timeout=20)) as connection:
        for segment in segments():
            for target in targets(route, segment):
                status, body = send(connection, route, target, master)
                assert status in REFUSALS, (route, target, status, body[:300])
                assert set(json.loads(body)) == FORM
                sent += 1
    assert state(fortress) == before
    assert sent >= len(NAMES)
    print(f"{named(route)}: {sent} hostile targets refused")


def test_odd_names_are_just_names(fortress: RunningServer, master: str) -> None:
    """What other systems reserve, and other spellings, name nothing here: 404, not somebody else's model."""
    for name in EXISTING_ODDLY:
        for path in (f"/v1/models/{name}", f"/v2/models/{name}", f"/v1/endpoints/{name}/traffic"):
            assert fortress.ask("GET", path, key=master).status == 404, path


def test_hostile_names_in_bodies_are_refused(fortress: RunningServer, master: str) -> None:
    """A client or a version in a body is named by the same rules."""
    before = fortress.ask("GET", "/v1/keys").body
    for name in NAMES:
        made = fortress.ask("POST", "/v1/keys", {"client": name}, key=master)
        assert made.status == 400, (name, made.body)
        told = fortress.ask("PUT", "/v1/endpoints/simple/traffic", {"weights": {name: 100}}, key=master)
        assert told.status == 400, (name, told.body)
    assert len(fortress.ask("GET", "/v1/keys").body) == len(before)
