"""Every management route that changes something leaves exactly one event: generated from the table of routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from asgi import Reply
from yard_support import Yard

from modelyard.audit.acting import acting
from modelyard.audit.event import Actor, AuditEvent
from modelyard.audit.ports import AuditFilter
from modelyard.audit.vocabulary import AuditAction
from modelyard.auth.scopes import Scope
from modelyard.http.management import TABLES
from modelyard.http.processes.health import UnhealthyVersions, version_token
from modelyard.http.routes.gate import Declared, needs_of
from modelyard.journal.ports import SpoolPosition
from modelyard.testing import prediction_record

SAFE = ("GET", "HEAD", "OPTIONS")
Place = tuple[str, str]
Ask = Callable[[Yard], Reply]

SUBJECTS = ("key", "version", "endpoint", "client", "model", "retention", "hold", "erasure")
CHANGES_NOTHING = {
    ("POST", "/v2/repository/models/{model}/load"): "only says whether the model is loaded",
    ("POST", "/v2/repository/models/{model}/unload"): "refuses, or says that the model is not loaded anyhow",
}
"""Routes of the scope `admin` that only look like a change, and why they leave no event."""

CHANGING: dict[Place, Declared] = {
    (route.method, route.path): route
    for table in TABLES
    for route in table
    if route.method not in SAFE
    and needs_of(route.path, route.endpoint).scope is Scope.ADMIN
    and (route.method, route.path) not in CHANGES_NOTHING
}
NOT_ADMINISTRATIVE = {
    ("POST", "/v1/predictions/{id}/outcome"): "an outcome is data of the prediction log, kept with its revisions there",
    ("POST", "/v1/outcomes"): "as above",
    ("POST", "/v2/repository/index"): "a list; the protocol asks for it with POST",
}
"""Routes that write, without the scope `admin`, and why they leave no event."""


def _key(yard: Yard) -> str:
    return next(key.id for key in yard.stores.keys.snapshot().keys if key.scopes == ("metrics",))


def _ill(yard: Yard) -> None:
    """Version 1 of `tree` is marked unhealthy."""
    marks = UnhealthyVersions(Path(yard.services.settings.data) / "unhealthy")
    marks.mark(version_token("tree", "1"), "tree", "1", 5, yard.clock.now())
    object.__setattr__(yard.services, "unhealthy", marks)


def _revive(yard: Yard) -> Reply:
    _ill(yard)
    return yard.ask("POST", "/v1/models/tree/versions/1/revive")


def _sweep(yard: Yard) -> Reply:
    yard.stores.sink.store([prediction_record("old", yard.clock.now() - 10**8)], SpoolPosition("f", 2))
    return yard.ask("POST", "/v1/retention/sweeps", {"force": True})


def _release(yard: Yard) -> Reply:
    with acting(Actor("client:admin", "", "127.0.0.1", "req-0")):
        held = yard.services.retention.hold("a case")
    return yard.ask("DELETE", f"/v1/retention/holds/{held.id}")


ASKED: Mapping[Place, tuple[Ask, AuditAction]] = {
    ("POST", "/v1/keys"): (lambda y: y.ask("POST", "/v1/keys", {"client": "predict"}), AuditAction.KEY_CREATE),
    ("DELETE", "/v1/keys/{id}"): (lambda y: y.ask("DELETE", f"/v1/keys/{_key(y)}"), AuditAction.KEY_REVOKE),
    ("PATCH", "/v1/keys/{id}"): (
        lambda y: y.ask("PATCH", f"/v1/keys/{_key(y)}", {"models": ["oak"]}), AuditAction.KEY_CHANGE,
    ),
    ("POST", "/v1/keys/{id}/rotation"): (
        lambda y: y.ask("POST", f"/v1/keys/{_key(y)}/rotation", {"overlap": "1h"}), AuditAction.KEY_ROTATE,
    ),
    ("POST", "/v1/keys/revocations"): (
        lambda y: y.ask("POST", "/v1/keys/revocations", {"client": "metrics"}), AuditAction.KEY_REVOKE,
    ),
    ("DELETE", "/v1/clients/{client}/keys"): (
        lambda y: y.ask("DELETE", "/v1/clients/metrics/keys"), AuditAction.KEY_REVOKE,
    ),
    ("POST", "/v1/models/{model}/versions"): (
        lambda y: y.ask("POST", "/v1/models/oak/versions", b"x"), AuditAction.VERSION_PUBLISH,
    ),
    ("PUT", "/v1/models/{model}/versions/{version}"): (
        lambda y: y.ask("PUT", "/v1/models/tree/versions/9", b"x"), AuditAction.VERSION_PUBLISH,
    ),
    ("POST", "/v1/models/{model}/versions/{version}/revive"): (_revive, AuditAction.VERSION_REVIVE),
    ("PUT", "/v1/endpoints/{endpoint}/traffic"): (
        lambda y: y.ask("PUT", "/v1/endpoints/tree/traffic", {"weights": {"2": 100}}), AuditAction.TRAFFIC_SET,
    ),
    ("POST", "/v1/retention/sweeps"): (_sweep, AuditAction.RETENTION_DELETE),
    ("POST", "/v1/retention/holds"): (
        lambda y: y.ask("POST", "/v1/retention/holds", {"reason": "a case"}), AuditAction.HOLD_CREATE,
    ),
    ("DELETE", "/v1/retention/holds/{id}"): (_release, AuditAction.HOLD_RELEASE),
    ("POST", "/v1/retention/erasures"): (
        lambda y: y.ask("POST", "/v1/retention/erasures", {"subject": "nobody"}), AuditAction.SUBJECT_ERASE,
    ),
}  # fmt: skip
"""A good request to each route, and what it must leave."""


def events(yard: Yard) -> list[AuditEvent]:
    return [event for some in yard.services.audit.export(AuditFilter(), 100) for event in some]


@pytest.mark.parametrize("place", CHANGING, ids=" ".join)
def test_each_changing_route_leaves_exactly_one_event(yard: Yard, place: Place) -> None:
    """Who (client and key), what, from where, with which request id; the chain stays whole."""
    assert place in ASKED, f"{place} changes something: add a good request and the action that it must record"
    ask, action = ASKED[place]
    before = len(events(yard))
    reply = ask(yard)
    assert reply.status in (200, 201, 202), reply.body
    (event,) = [one for one in events(yard)[before:] if one.request_id != "req-0"]
    assert event.action == action
    admin = next(key for key in yard.stores.keys.snapshot().keys if key.scopes == ("admin",) and key.models == ("*",))
    assert (event.actor, event.key_id) == ("client:admin", admin.id)
    assert (event.address, event.request_id) == ("127.0.0.1", "req-1")
    assert event.subject.partition(":")[0] in SUBJECTS
    assert yard.services.audit.verify().sound


@pytest.mark.parametrize("place", CHANGING, ids=" ".join)
def test_each_changing_route_leaves_none_when_it_refuses(yard: Yard, place: Place) -> None:
    """No key, another scope, a bad body, names of nothing: refused, and no event; 401 and 403 are counted instead."""
    before = len(events(yard))
    target = place[1].format_map(dict.fromkeys(("model", "version", "endpoint", "id", "client"), "none"))
    for scope in ("none", "metrics", "predict"):
        assert yard.ask(place[0], target, b"{", scope=scope).status in (401, 403)
    if "versions" not in target or "revive" in target:  # those would publish it
        assert yard.ask(place[0], target, b"{").status >= 400 or "clients" in target
    assert len(events(yard)) == before
    assert yard.services.refused.flush(yard.services.audit.append) == 3
    assert {event.after["count"] for event in events(yard)[before:]} == {1}
    assert {event.subject for event in events(yard)[before:]} == {
        "address:127.0.0.1", "client:metrics", "client:predict",
    }  # fmt: skip


def test_routes_that_write_without_being_administrative_are_these() -> None:
    """A new route that writes is either audited or stands here with its reason."""
    others = {
        (route.method, route.path)
        for table in TABLES
        for route in table
        if route.method not in SAFE and (route.method, route.path) not in CHANGING
    }
    assert others == {*NOT_ADMINISTRATIVE, *CHANGES_NOTHING}
    assert set(ASKED) == set(CHANGING)


@pytest.mark.parametrize("place", CHANGES_NOTHING, ids=" ".join)
def test_what_changes_nothing_leaves_nothing(yard: Yard, place: Place) -> None:
    """Neither an event, nor another state of versions and traffic."""
    before = events(yard), yard.stores.keys.version(), yard.stores.registry.versions()
    yard.ask(place[0], place[1].format(model="tree"))
    assert (events(yard), yard.stores.keys.version(), yard.stores.registry.versions()) == before


def test_a_client_is_an_event_of_its_own(yard: Yard) -> None:
    """A key's request that makes or changes its client as well changes two things, so it leaves two events."""
    before = len(events(yard))
    yard.ask("POST", "/v1/keys", {"client": "fresh"})
    yard.ask("POST", "/v1/keys", {"client": "fresh", "rate": "7/s"})
    assert [str(event.action) for event in events(yard)[before:]] == [
        "client:create", "key:create", "client:change", "key:create",
    ]  # fmt: skip
    both = {"models": ["tree"], "rate": "8/s"}
    assert yard.ask("PATCH", f"/v1/keys/{_key(yard)}", both).status == 200
    assert [str(event.action) for event in events(yard)[-2:]] == ["client:change", "key:change"]


def test_the_log_is_read_by_pages_and_filters(yard: Yard) -> None:
    """Newest first, `next_cursor` and `Link` lead on; filters select; a key bound to some models may not read."""
    seen: list[int] = []
    query = "limit=4"
    while True:
        page = yard.ask("GET", f"/v1/audit?{query}", scope="audit")
        seen += [event["sequence"] for event in page.json()["events"]]
        if page.json()["next_cursor"] is None:
            break
        query = f"limit=4&cursor={page.json()['next_cursor']}"
        assert query in page.headers["link"]
    assert seen == list(range(len(events(yard)), 0, -1))
    for asked, code in (
        ("action=key:made", "parameter_invalid"), ("since=soon", "parameter_invalid"), ("cursor=%00", "cursor_invalid"),
        ("actions=x", "field_unknown"), ("limit=0", "parameter_invalid"),
    ):  # fmt: skip
        refused = yard.ask("GET", f"/v1/audit?{asked}", scope="audit")
        assert (refused.status, refused.json()["code"]) == (400, code)
    only = yard.ask("GET", "/v1/audit?action=version:publish&subject=version:tree/2", scope="audit").json()["events"]
    assert [event["subject"] for event in only] == ["version:tree/2"]
    for path in ("/v1/audit", "/v1/audit/verify", "/v1/audit/head", "/v1/audit/export"):
        assert yard.ask("GET", path, scope="oak").status == 403
    head = yard.ask("GET", "/v1/audit/head", scope="audit").json()["head"]
    assert head == {"sequence": len(events(yard)), "hash": events(yard)[-1].hash}
    kept = f"/v1/audit/verify?sequence={head['sequence']}&hash={head['hash']}"
    assert yard.ask("GET", kept, scope="audit").json()["sound"]
    other = f"/v1/audit/verify?sequence={head['sequence']}&hash={'0' * 64}"
    assert yard.ask("GET", other, scope="audit").json()["problems"][0]["code"] == "head_differs"
    assert yard.ask("GET", "/v1/audit/verify?sequence=1", scope="audit").json()["code"] == "field_missing"
