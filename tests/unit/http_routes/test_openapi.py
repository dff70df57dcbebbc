"""The OpenAPI document tells the truth: every route is in it, and every real answer is what it promises."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from asgi import Reply
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from yard_support import Yard

from modelyard.core.errors import PublishError
from modelyard.http.management import TABLES
from modelyard.http.routes.gate import _NEEDS, Declared
from modelyard.http.wire import PREDICT_ROUTES
from modelyard.testing import version

DECLARED = {(route.method, route.path): route for table in TABLES for route in table}
Ask = Callable[[Yard], Reply]


def document(yard: Yard, scope: str = "none") -> dict[str, Any]:
    """The document as a caller gets it."""
    reply = yard.ask("GET", "/openapi.json", scope=scope)
    assert reply.status == 200, reply.body
    said: dict[str, Any] = reply.json()
    return said


def check(yard: Yard, declared: Declared, reply: Reply) -> None:
    """Status, media type and form of an answer are among those that the document promises."""
    whole = document(yard)
    responses = whole["paths"][declared.path][declared.method.lower()]["responses"]
    assert str(reply.status) in responses, (declared.path, reply.status, reply.body[:300])
    content = responses[str(reply.status)].get("content", {})
    if not reply.body:
        assert not content
        return
    media = reply.headers["content-type"].partition(";")[0]
    assert media in content, (declared.path, media)
    if media != "application/json":
        return
    schema = content["application/json"]["schema"]
    wrong = list(Draft202012Validator({**schema, "components": whole["components"]}).iter_errors(reply.json()))
    assert not wrong, (declared.path, wrong[0].message, list(wrong[0].path))


def _refusing_publish(yard: Yard) -> Reply:
    yard.publisher.refuse = PublishError("model_empty", "The model is empty.")
    return yard.ask("POST", "/v1/models/oak/versions", b"x")


def _loaded(path: str) -> Ask:
    def ask(yard: Yard) -> Reply:
        yard.loaded = (("tree", "1"), ("tree", "2"))
        return yard.ask("POST", path)

    return ask


def _unready(path: str, method: str = "GET", scope: str = "predict") -> Ask:
    def ask(yard: Yard) -> Reply:
        yard.reason, yard.loaded = "the models are being loaded", ()
        return yard.ask(method, path, scope=scope)

    return ask


def _key(yard: Yard) -> str:
    return str(yard.stores.keys.snapshot().keys[0].id)


GOOD: Mapping[tuple[str, str], list[Ask]] = {
    ("GET", "/v2"): [lambda y: y.ask("GET", "/v2")],
    ("GET", "/v2/"): [lambda y: y.ask("GET", "/v2/")],
    ("GET", "/v2/health/live"): [lambda y: y.ask("GET", "/v2/health/live")],
    ("GET", "/v2/health/ready"): [lambda y: y.ask("GET", "/v2/health/ready"), _unready("/v2/health/ready")],
    ("GET", "/v2/models/{model}"): [lambda y: y.ask("GET", "/v2/models/tree", scope="predict")],
    ("GET", "/v2/models/{model}/versions/{version}"): [
        lambda y: y.ask("GET", "/v2/models/tree/versions/1", scope="predict")
    ],
    ("GET", "/v2/models/{model}/ready"): [
        lambda y: y.ask("GET", "/v2/models/tree/ready", scope="predict"),
        _unready("/v2/models/tree/ready"),
    ],
    ("GET", "/v2/models/{model}/versions/{version}/ready"): [
        lambda y: y.ask("GET", "/v2/models/tree/versions/1/ready", scope="predict"),
        _unready("/v2/models/tree/versions/1/ready"),
    ],
    ("GET", "/ping"): [lambda y: y.ask("GET", "/ping"), _unready("/ping")],
    ("GET", "/v2/models/stats"): [lambda y: y.ask("GET", "/v2/models/stats", scope="predict")],
    ("GET", "/v2/models/{model}/stats"): [lambda y: y.ask("GET", "/v2/models/tree/stats", scope="predict")],
    ("GET", "/v2/models/{model}/versions/{version}/stats"): [
        lambda y: y.ask("GET", "/v2/models/tree/versions/1/stats", scope="predict"),
        lambda y: y.ask("GET", "/v2/models/tree/versions/9/stats", scope="predict"),
    ],
    ("POST", "/v2/repository/index"): [
        lambda y: y.ask("POST", "/v2/repository/index", scope="predict"),
        lambda y: y.ask("POST", "/v2/repository/index", {"ready": 1}, scope="predict"),
    ],
    ("POST", "/v2/repository/models/{model}/load"): [
        lambda y: y.ask("POST", "/v2/repository/models/tree/load"),
        lambda y: y.ask("POST", "/v2/repository/models/oak/load"),
        _unready("/v2/repository/models/tree/load", "POST", "admin"),
    ],
    ("POST", "/v2/repository/models/{model}/unload"): [
        _unready("/v2/repository/models/tree/unload", "POST", "admin"),
        _loaded("/v2/repository/models/tree/unload"),
    ],
    ("GET", "/"): [lambda y: y.ask("GET", "/", scope="none")],
    ("GET", "/v1/models"): [
        lambda y: y.ask("GET", "/v1/models"),
        lambda y: y.ask("GET", "/v1/models", scope="oak"),
        lambda y: y.ask("GET", "/v1/models?limit=0"),
    ],
    ("GET", "/v1/models/{model}"): [
        lambda y: y.ask("GET", "/v1/models/tree"),
        lambda y: y.ask("GET", "/v1/models/tree", scope="predict"),
        lambda y: y.ask("GET", "/v1/models/tree", if_none_match="*"),
    ],
    ("GET", "/v1/models/{model}/versions"): [lambda y: y.ask("GET", "/v1/models/tree/versions?limit=1")],
    ("GET", "/v1/models/{model}/versions/{version}"): [
        lambda y: y.ask("GET", "/v1/models/tree/versions/1"),
        lambda y: y.ask("GET", "/v1/models/tree/versions/1", scope="predict"),
        lambda y: y.ask("GET", "/v1/models/tree/versions/9"),
    ],
    ("POST", "/v1/models/{model}/versions"): [
        lambda y: y.ask("POST", "/v1/models/oak/versions", b"x"),
        lambda y: y.ask("POST", "/v1/models/oak/versions", b"x", content_type="text/plain"),
        _refusing_publish,
    ],
    ("PUT", "/v1/models/{model}/versions/{version}"): [
        lambda y: y.ask("PUT", "/v1/models/oak/versions/1", b"x"),
        lambda y: y.ask("PUT", "/v1/models/oak/versions/1", b"x"),
        lambda y: y.ask("PUT", "/v1/models/oak/versions/1", b"y"),
    ],
    ("GET", "/v1/endpoints"): [lambda y: y.ask("GET", "/v1/endpoints")],
    ("GET", "/v1/endpoints/{endpoint}/traffic"): [lambda y: y.ask("GET", "/v1/endpoints/tree/traffic")],
    ("PUT", "/v1/endpoints/{endpoint}/traffic"): [
        lambda y: y.ask("PUT", "/v1/endpoints/tree/traffic", {"weights": {"2": 100}}, if_match='"1"'),
        lambda y: y.ask("PUT", "/v1/endpoints/tree/traffic", {"weights": {"1": 100}}, if_match='"1"'),
        lambda y: y.ask("PUT", "/v1/endpoints/tree/traffic", {"weights": {"9": 100}}),
        lambda y: y.ask("PUT", "/v1/endpoints/tree/traffic", {"weights": 1}),
    ],
    ("POST", "/v1/keys"): [lambda y: y.ask("POST", "/v1/keys", {"client": "acme", "expires": "1d"})],
    ("GET", "/v1/keys"): [lambda y: y.ask("GET", "/v1/keys")],
    ("GET", "/v1/keys/{id}"): [
        lambda y: y.ask("GET", f"/v1/keys/{_key(y)}"),
        lambda y: y.ask("GET", f"/v1/keys/{_key(y)}", if_none_match="*"),
        lambda y: y.ask("GET", "/v1/keys/none"),
    ],
    ("PATCH", "/v1/keys/{id}"): [
        lambda y: y.ask("PATCH", f"/v1/keys/{_key(y)}", {"quota": "5/day", "concurrency": 2}),
        lambda y: y.ask("PATCH", f"/v1/keys/{_key(y)}", {"quota": "5"}, if_match='"old"'),
        lambda y: y.ask("PATCH", "/v1/keys/none", {}),
    ],
    ("POST", "/v1/keys/{id}/rotation"): [
        lambda y: y.ask("POST", f"/v1/keys/{_key(y)}/rotation", {"overlap": "1h"}),
        lambda y: y.ask("POST", f"/v1/keys/{_key(y)}/rotation", {}),
        lambda y: y.ask("POST", "/v1/keys/none/rotation"),
    ],
    ("POST", "/v1/keys/revocations"): [
        lambda y: y.ask("POST", "/v1/keys/revocations", {"client": "predict"}),
        lambda y: y.ask("POST", "/v1/keys/revocations", {}),
    ],
    ("DELETE", "/v1/clients/{client}/keys"): [lambda y: y.ask("DELETE", "/v1/clients/predict/keys?dry_run=true")],
    ("GET", "/v1/me"): [lambda y: y.ask("GET", "/v1/me", scope="predict")],
    ("DELETE", "/v1/keys/{id}"): [
        lambda y: y.ask("DELETE", f"/v1/keys/{_key(y)}"),
        lambda y: y.ask("DELETE", f"/v1/keys/{_key(y)}", if_match='"old"'),
        lambda y: y.ask("DELETE", "/v1/keys/none"),
        lambda y: y.ask("DELETE", f"/v1/keys/{_key(y)}", if_match='"x"'),
    ],
    ("GET", "/v1/predictions"): [
        lambda y: y.ask("GET", "/v1/predictions"),
        lambda y: y.ask("GET", "/v1/predictions?limit=1"),
        lambda y: y.ask("GET", "/v1/predictions?items=true&outcome=none"),
        lambda y: y.ask("GET", "/v1/predictions?quarantined=true"),
    ],
    ("GET", "/v1/predictions/count"): [lambda y: y.ask("GET", "/v1/predictions/count")],
    ("GET", "/v1/predictions/export"): [
        lambda y: y.ask("GET", "/v1/predictions/export"),
        lambda y: y.ask("GET", "/v1/predictions/export?format=csv"),
        lambda y: y.ask("GET", "/v1/predictions/export?format=parquet"),
    ],
    ("GET", "/v1/predictions/{id}"): [
        lambda y: y.ask("GET", "/v1/predictions/p1"),
        lambda y: y.ask("GET", "/v1/predictions/p1?raw=true"),
    ],
    ("POST", "/v1/predictions/{id}/outcome"): [
        lambda y: y.ask("POST", "/v1/predictions/p1/outcome", {"value": 1}),
        lambda y: y.ask("POST", "/v1/predictions/p1/outcome", {"value": 1}),
        lambda y: y.ask("POST", "/v1/predictions/p1/outcome", {"value": 1}, scope="predict"),
    ],
    ("POST", "/v1/outcomes"): [
        lambda y: y.ask("POST", "/v1/outcomes", [{"id": "p1/0", "value": {"a": 1}}, {"id": "p9", "value": 0}, 7]),
        lambda y: y.ask("POST", "/v1/outcomes", {"id": "p1"}),
    ],
    ("GET", "/v1/predictions/{id}/outcomes"): [lambda y: y.ask("GET", "/v1/predictions/p1/outcomes")],
    ("GET", "/v1/audit"): [
        lambda y: y.ask("GET", "/v1/audit", scope="audit"),
        lambda y: y.ask("GET", "/v1/audit?cursor=x", scope="audit"),
    ],
    ("GET", "/v1/audit/verify"): [lambda y: y.ask("GET", "/v1/audit/verify", scope="audit")],
    ("GET", "/v1/audit/head"): [lambda y: y.ask("GET", "/v1/audit/head", scope="audit")],
    ("GET", "/v1/audit/export"): [lambda y: y.ask("GET", "/v1/audit/export", scope="audit")],
    ("GET", "/v1/analytics/requests"): [
        lambda y: y.ask("GET", "/v1/analytics/requests?by=model,client&interval=hour"),
        lambda y: y.ask("GET", "/v1/analytics/requests", scope="audit"),
        lambda y: y.ask("GET", "/v1/analytics/requests?by=subject"),
        lambda y: y.ask("GET", "/v1/analytics/requests?since=1h&until=2h"),
        lambda y: object.__setattr__(y.services, "analytics", None) or y.ask("GET", "/v1/analytics/requests"),
    ],
    ("GET", "/v1/analytics/models/{model}/scores"): [
        lambda y: y.ask("GET", "/v1/analytics/models/tree/scores"),
        lambda y: y.ask("GET", "/v1/analytics/models/tree/scores?since=never"),
    ],
    ("GET", "/v1/analytics/models/{model}/comparison"): [
        lambda y: y.ask("GET", "/v1/analytics/models/tree/comparison?base=1&other=2"),
        lambda y: y.ask("GET", "/v1/analytics/models/tree/comparison"),
    ],
    ("GET", "/v1/retention"): [lambda y: y.ask("GET", "/v1/retention")],
    ("POST", "/v1/retention/sweeps"): [
        lambda y: y.ask("POST", "/v1/retention/sweeps"),
        lambda y: y.ask("POST", "/v1/retention/sweeps", {"force": True}),
    ],
    ("GET", "/v1/retention/holds"): [lambda y: y.ask("GET", "/v1/retention/holds")],
    ("POST", "/v1/retention/holds"): [
        lambda y: y.ask("POST", "/v1/retention/holds", {"reason": "a case", "model": "tree", "since": "7d"}),
        lambda y: y.ask("POST", "/v1/retention/holds", {"reason": ""}),
    ],
    ("DELETE", "/v1/retention/holds/{id}"): [
        lambda y: y.ask("DELETE", f"/v1/retention/holds/{y.services.retention.hold('a case').id}"),
        lambda y: y.ask("DELETE", "/v1/retention/holds/none"),
    ],
    ("POST", "/v1/retention/erasures"): [
        lambda y: y.ask("POST", "/v1/retention/erasures", {"subject": "s", "dry_run": True}),
        lambda y: y.ask("POST", "/v1/retention/erasures", {"subject": "s"}),
        lambda y: y.ask("POST", "/v1/retention/erasures", {"subject": ""}),
    ],
    ("POST", "/v1/models/{model}/versions/{version}/revive"): [
        lambda y: y.ask("POST", "/v1/models/tree/versions/1/revive"),
        lambda y: y.ask("POST", "/v1/models/tree/versions/9/revive"),
    ],
    ("GET", "/openapi.json"): [
        lambda y: y.ask("GET", "/openapi.json", scope="none"),
        lambda y: y.ask("GET", "/openapi.json", scope="metrics"),
    ],
    ("GET", "/v1/models/{model}/openapi.json"): [
        lambda y: y.ask("GET", "/v1/models/tree/openapi.json", scope="predict")
    ],
    **{("GET", path): [lambda y, path=path: y.ask("GET", path, scope="none")] for path in (
        "/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css",
    )},
}  # fmt: skip
"""Requests for every route; the first of each is a good one."""


@pytest.mark.parametrize("place", DECLARED, ids=lambda place: " ".join(place))
def test_real_answers_are_what_the_document_promises(yard: Yard, place: tuple[str, str]) -> None:
    """Good answers and refusals of every route: declared status, media type and form, without a field more."""
    declared = DECLARED[place]
    assert declared.answers.form or declared.answers.media, f"{place} does not declare what it answers"
    assert place in GOOD, f"{place} has no request here: add one, and its answers to the route"
    for number, ask in enumerate(GOOD[place]):
        reply = ask(yard)
        if number == 0:
            assert reply.status in declared.answers.statuses, reply.body
        check(yard, declared, reply)
    if getattr(declared.endpoint, _NEEDS).scope is not None:
        target = re.sub(r"\{[a-z]+\}", "tree", declared.path)
        check(yard, declared, yard.ask(declared.method, target, scope="none"))
        check(yard, declared, yard.ask(declared.method, target.replace("tree", "a..b") + "?x=1&x=2"))


def test_the_document_is_openapi(yard: Yard) -> None:
    """Valid OpenAPI 3.1, with and without models; each operation has its own id, and names its scope."""
    for scope in ("none", "admin", "predict"):
        whole = document(yard, scope)
        OpenAPIV31SpecValidator(whole).validate()
        operations = [operation for item in whole["paths"].values() for operation in item.values()]
        names = [operation["operationId"] for operation in operations]
        assert len(set(names)) == len(names)
        for operation in operations:
            assert bool(operation["security"]) is ("x-modelyard-scope" in operation)
            assert "422" not in operation["responses"] or "HTTPValidationError" not in str(operation)
    OpenAPIV31SpecValidator(yard.ask("GET", "/v1/models/tree/openapi.json", scope="predict").json()).validate()


def test_every_route_is_in_it(yard: Yard) -> None:
    """What is declared is documented, the native predict routes too, and nothing else."""
    paths = document(yard)["paths"]
    found = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert found == set(DECLARED) | {("POST", path) for path in PREDICT_ROUTES}


def test_models_are_shown_to_their_keys_alone(yard: Yard) -> None:
    """Without a key no name of a model, a client or a version is in it; with one, those that it may use."""
    for name in ("willow", "oak-7"):
        yard.stores.registry.add_version(version(name, "v77", b"x"))
    open_to_all = yard.ask("GET", "/openapi.json", scope="none").body
    assert not any(text in open_to_all for text in (b"willow", b"oak-7", b"v77"))
    bound = yard.ask("GET", "/openapi.json", scope="oak").body
    assert b"/v2/models/oak-7/infer" in bound
    assert b"willow" not in bound
    assert "/v2/models/willow/infer" in document(yard, "predict")["paths"]
    assert yard.ask("GET", "/openapi.json", scope="metrics").status == 403
    assert yard.ask("GET", "/v1/models/tree/openapi.json", scope="oak").status == 403
    assert yard.ask("GET", "/v1/models/none/openapi.json", scope="predict").status == 404
    wrong = {**yard.keys, "x": yard.keys["admin"][:-1] + "_"}
    yard.keys = wrong
    assert yard.ask("GET", "/openapi.json", scope="x").status == 401


def test_a_model_is_described_by_its_own_names(yard: Yard) -> None:
    """Input names, shapes and types; columns as the features of a row; the example fits the schema beside it."""
    paths = yard.ask("GET", "/v1/models/tree/openapi.json", scope="predict").json()["paths"]
    infer = paths["/v2/models/tree/infer"]["post"]["requestBody"]["content"]["application/json"]
    tensor = infer["schema"]["properties"]["inputs"]["items"]["properties"]
    assert (tensor["name"], tensor["datatype"]) == ({"const": "x"}, {"const": "FP32"})
    assert tensor["shape"]["prefixItems"] == [{"type": "integer", "minimum": 0}, {"type": "integer", "const": 2}]
    rows = paths["/v1/models/tree/predictions"]["post"]["requestBody"]["content"]["application/json"]
    item = rows["schema"]["properties"]["items"]["items"]
    assert item["required"] == ["a", "b"]
    assert item["properties"]["a"] == {"type": "number"}
    for path in paths:
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        for example in body["examples"].values():
            Draft202012Validator(body["schema"]).validate(example["value"])


def test_the_page_loads_nothing_from_elsewhere(yard: Yard) -> None:
    """Page, script, styles come from here, under a policy that forbids everything else."""
    reply = yard.ask("GET", "/docs", scope="none")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "//" not in policy
    page = reply.body.decode()
    assert "http:" not in page
    assert "https:" not in page
    assert "<script>" not in page
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page):
        asset = yard.ask("GET", f"/{name}", scope="none")
        assert asset.status == 200
        assert asset.headers["x-content-type-options"] == "nosniff"
        assert len(asset.body) > 500
    assert b"SwaggerUIBundle" in yard.ask("GET", "/docs/swagger-ui-bundle.js", scope="none").body
