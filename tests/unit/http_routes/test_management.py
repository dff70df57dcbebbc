"""The management routes: what they do, and that they refuse in one form."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import tarfile
from pathlib import Path
from typing import Any

import pytest
from asgi import Reply, call
from fastapi import FastAPI
from yard_support import Yard

from modelyard.core.errors import PublishError, UnavailableError
from modelyard.http.management import TABLES, add_routes
from modelyard.http.resource.strict import MAX_JSON_BODY_BYTES
from modelyard.http.resource.upload import Upload, publish_upload
from modelyard.http.routes.gate import GatedRoute, RouteTable

KEYS = {"error", "code", "detail", "request_id"}


def refused(reply: Reply, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """Checks the error form and returns its detail."""
    body = reply.json()
    assert (reply.status, body["code"]) == (status, code), body
    assert body.keys() >= KEYS
    assert body["request_id"] == "req-1"
    assert reply.headers["content-type"] == "application/json"
    assert body["error"].endswith((".", "?"))
    if field is not None:
        assert body["detail"]["field"] == field
    detail: dict[str, Any] = body["detail"]
    return detail


def test_a_route_without_a_scope_cannot_be_registered() -> None:
    """Deny by default: an endpoint that declares nothing is a TypeError, not an open door."""
    table = RouteTable("open")

    @table.get("/v1/open")
    def endpoint() -> None: ...

    with pytest.raises(TypeError, match="declares no scope"):
        add_routes(FastAPI(), [table])


def test_every_route_of_the_application_is_gated(yard: Yard) -> None:
    """Nothing answers beside the gate, and only health, the server's metadata and the documentation are public."""
    routes = yard.app.router.routes
    assert all(isinstance(route, GatedRoute) for route in routes)
    public = {route.path for route in routes if route.needs.scope is None}
    health = {"/", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/ping"}
    docs = {"/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"}
    assert public == health | docs


ROUTES = [(route.method, route.path, route.endpoint) for table in TABLES for route in table]


@pytest.mark.parametrize(("method", "path", "endpoint"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
def test_every_route_refuses_without_key_and_without_scope(yard: Yard, method: str, path: str, endpoint: Any) -> None:
    """401 without a key, 403 with a key of another scope, whatever the body; the body is not even read."""
    needs = endpoint.__modelyard_needs__
    names = {"model": "tree", "endpoint": "tree", "version": "1"}
    target = re.sub(r"\{(\w+)\}", lambda field: names.get(field[1], "x"), path)
    if needs.scope is None:
        assert yard.ask(method, target, scope="none").status in (200, 503)
        return
    refused(yard.ask(method, target, b"{", scope="none"), 401, "key_missing", "x-api-key")
    assert yard.ask(method, target, scope="none").headers["www-authenticate"] == "Bearer"
    refused(yard.ask(method, target, b"{", scope="metrics"), 403, "scope_missing", "scope")


def test_a_key_bound_to_models_sees_and_changes_only_those(yard: Yard) -> None:
    """Scopes times model patterns, on management too: no key of its own making, no other model, no other record."""
    for method, target, body in (
        ("GET", "/v1/models/tree", b""),
        ("PUT", "/v1/endpoints/tree/traffic", {"weights": {"1": 100}}),
        ("POST", "/v1/models/tree/versions", b"x"),
        ("GET", "/v1/keys", b""),
        ("POST", "/v1/keys", {"client": "mallory"}),
        ("GET", "/v1/predictions", b""),
        ("GET", "/v1/predictions?model=tree", b""),
        ("GET", "/v2/models/tree", b""),
    ):
        refused(yard.ask(method, target, body, scope="oak"), 403, "model_not_allowed", "model")
    assert yard.ask("GET", "/v1/models", scope="oak").json() == {"models": [], "next_cursor": None}
    assert yard.ask("GET", "/v1/endpoints", scope="oak").json() == {"endpoints": [], "next_cursor": None}
    assert yard.ask("GET", "/v1/predictions/count?model=oak-1", scope="oak").json() == {"count": 0}
    refused(yard.ask("GET", "/v1/predictions/p1", scope="oak"), 404, "prediction_not_found")


def test_unknown_routes_and_verbs_are_refused_in_our_form(yard: Yard) -> None:
    """404 and 405 in our form; `Allow` names every verb of the path."""
    refused(yard.ask("GET", "/v1/nothing"), 404, "route_not_found", "path")
    refused(yard.ask("GET", "/v1/keys/"), 404, "route_not_found")
    reply = yard.ask("PATCH", "/v1/keys")
    refused(reply, 405, "method_not_allowed", "method")
    assert reply.headers["allow"] == "GET, POST"
    assert yard.ask("HEAD", "/v2").headers["allow"] == "GET"


def test_an_unknown_field_is_told_the_known_ones(yard: Yard) -> None:
    """Whoever misspells a field reads what it is called."""
    expected = yard.ask("POST", "/v1/keys", {"client": "a", "quota_per_day": 1}).json()["detail"]["expected"]
    assert {"client", "rate", "scopes"} <= set(expected)


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 400, "field_missing", "client"),
        ({"client": 7}, 400, "field_type", "client"),
        ({"client": "a", "scopes": "predict"}, 400, "field_type", "scopes"),
        ({"client": "a", "scopes": [1]}, 400, "field_type", "scopes[0]"),
        ({"client": "a", "colour": 1}, 400, "field_unknown", "colour"),
        ({"client": "../a"}, 400, "name_invalid", "client"),
        ({"client": "a", "scopes": ["root"]}, 400, "parameter_invalid", "scopes"),
        ({"client": "a", "models": ["a b"]}, 400, "parameter_invalid", "models"),
        ({"client": "a", "rate": "fast"}, 400, "rate_invalid", "rate"),
        ({"client": "a", "expires": "soon"}, 400, "parameter_invalid", "expires"),
        ([], 400, "field_type", "body"),
        (b"{", 400, "json_invalid", "body"),
        (b"", 400, "field_missing", "body"),
        (b"\xff\xfe{", 400, "json_invalid", "body"),
        (b"[" * 100_000, 400, "json_too_deep", "body"),
        (b'{"client": "a", "client": "b"}', 400, "json_duplicate_key", "client"),
        (b'{"client": "a", "scopes": [], "scopes": ["admin"]}', 400, "json_duplicate_key", "scopes"),
        (b'{"client": NaN}', 400, "value_invalid", "client"),
        (b'{"client": "a"} {}', 400, "json_invalid", "body"),
    ],
)
def test_a_bad_key_request_names_the_field(yard: Yard, body: Any, status: int, code: str, field: str) -> None:
    """Each mistake has its code and its place; nothing is made."""
    before = len(yard.stores.keys.snapshot().keys)
    refused(yard.ask("POST", "/v1/keys", body), status, code, field)
    assert len(yard.stores.keys.snapshot().keys) == before


def test_bodies_in_another_form_and_too_large_bodies_are_refused(yard: Yard) -> None:
    """415 for what is not JSON, 413 for more than the bound."""
    refused(yard.ask("POST", "/v1/keys", b"client=a", content_type="text/plain"), 415, "content_type_unsupported")
    large = b'"' + b"x" * MAX_JSON_BODY_BYTES + b'"'
    refused(yard.ask("POST", "/v1/keys", large, content_type="application/json"), 413, "body_too_large", "body")


def test_keys_are_shown_once_listed_and_revoked(yard: Yard) -> None:
    """POST gives the text, GET never does, DELETE ends it, twice is no error, an unknown one is 404."""
    body = {"client": "acme", "scopes": ["predict"], "models": ["tree*"], "rate": "5/10s", "expires": "30d"}
    reply = yard.ask("POST", "/v1/keys", body)
    made = reply.json()
    assert reply.status == 201
    assert reply.headers["cache-control"] == "no-store"
    assert (made["client"], made["rate"], made["models"], made["state"]) == ("acme", "5/10s", ["tree*"], "active")
    assert call(yard.app, "GET", "/v2/models/tree", key=made["key"]).status == 200
    listed = yard.ask("GET", "/v1/keys")
    assert made["id"] in {key["id"] for key in listed.json()["keys"]}
    assert made["key"].encode() not in listed.body
    assert yard.ask("DELETE", f"/v1/keys/{made['id']}").json()["state"] == "revoked"
    assert yard.ask("DELETE", f"/v1/keys/{made['id']}").status == 200
    refused(call(yard.app, "GET", "/v2/models/tree", key=made["key"]), 401, "key_revoked")
    refused(yard.ask("DELETE", "/v1/keys/nothing"), 404, "key_not_found")


def test_traffic_is_replaced_whole_or_not_at_all(yard: Yard) -> None:
    """Shares add up to 100 and name versions that exist; a refusal changes nothing."""
    target = "/v1/endpoints/tree/traffic"
    assert yard.ask("GET", target).json()["weights"] == {"1": 100}
    changed = yard.ask("PUT", target, {"weights": {"1": 90, "2": 10}}).json()
    assert (changed["weights"], changed["model"]) == ({"1": 90, "2": 10}, "tree")
    for weights, status, code in (
        ({"1": 90, "2": 11}, 400, "traffic_invalid"),
        ({"1": 110, "2": -10}, 400, "traffic_invalid"),
        ({}, 400, "traffic_invalid"),
        ({"1": 50.5, "2": 49.5}, 400, "field_type"),
        ({"1": "100"}, 400, "field_type"),
        ({"../1": 100}, 400, "name_invalid"),
        ({"3": 100}, 404, "version_not_found"),
    ):
        refused(yard.ask("PUT", target, {"weights": weights}), status, code)
    assert yard.ask("GET", target).json()["weights"] == {"1": 90, "2": 10}
    assert yard.ask("PUT", target, {"weights": {"1": 0, "2": 100}}).json()["weights"] == {"2": 100}
    refused(yard.ask("GET", "/v1/endpoints/oak/traffic"), 404, "endpoint_not_found")
    refused(yard.ask("GET", "/v1/endpoints/..%2Fx/traffic"), 404, "route_not_found")
    refused(yard.ask("GET", "/v1/endpoints/a..b/traffic"), 400, "name_invalid", "endpoint")


def test_models_and_versions_are_read(yard: Yard) -> None:
    """Lists, one model, one version with its files and signature; unknown ones are 404 with a code."""
    (model,) = yard.ask("GET", "/v1/models").json()["models"]
    assert (model["name"], model["versions"], model["latest"], model["traffic"]) == (
        "tree",
        ["1", "2"],
        "2",
        {"1": 100},
    )
    assert [v["version"] for v in yard.ask("GET", "/v1/models/tree").json()["versions"]] == ["1", "2"]
    assert len(yard.ask("GET", "/v1/models/tree/versions").json()["versions"]) == 2
    version = yard.ask("GET", "/v1/models/tree/versions/1").json()
    assert version["files"][0]["size_bytes"] == 1
    assert version["signature"]["inputs"][0]["name"] == "x"
    refused(yard.ask("GET", "/v1/models/oak"), 404, "model_not_found")
    refused(yard.ask("GET", "/v1/models/tree/versions/9"), 404, "version_not_found")
    refused(yard.ask("GET", "/v1/models/-x"), 400, "name_invalid", "model")


def test_a_file_is_published_by_streaming_it(yard: Yard) -> None:
    """The publisher sees exactly the bytes under the given name; 201, then 200 for the same; nothing stays behind."""
    body = bytes(range(256)) * 8000
    reply = yard.ask("PUT", "/v1/models/oak/versions/a", body, x_modelyard_filename="oak.onnx")
    assert (reply.status, reply.json()["created"], reply.json()["version"]) == (201, True, "a")
    assert yard.publisher.seen[-1] == {"oak.onnx": body}
    assert yard.ask("PUT", "/v1/models/oak/versions/a", body).status == 200
    refused(yard.ask("PUT", "/v1/models/oak/versions/a", b"other"), 409, "version_exists")
    assert yard.ask("POST", "/v1/models/oak/versions", b"next").status == 201
    assert list((yard.services.settings.data / "uploads").iterdir()) == []


def test_a_folder_is_published_as_a_tar(yard: Yard) -> None:
    """The archive's files arrive as they are; one that points outside is refused and nothing stays behind."""
    reply = yard.ask("POST", "/v1/models/oak/versions", _tar("m.onnx"), content_type="application/x-tar")
    assert reply.status == 201
    assert yard.publisher.seen[-1] == {"m.onnx": b"data"}
    for body in (_tar("../m.onnx"), b"no tar", b""):
        reply = yard.ask("POST", "/v1/models/oak/versions", body, content_type="application/x-tar")
        refused(reply, 422, "archive_unsafe")
    assert list((yard.services.settings.data / "uploads").iterdir()) == []


def test_an_archive_that_does_not_fit_on_the_disk_is_no_fault_of_ours(yard: Yard, tmp_path: Path) -> None:
    """The body came whole, its files find no room: store_unavailable, as for one that does not come whole."""
    (tmp_path / "upload.tar").write_bytes(_tar("m.onnx"))
    upload = Upload(tmp_path / "upload.tar", True, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, limits[1]))
    try:
        with pytest.raises(UnavailableError) as raised:
            publish_upload(yard.services, upload, "oak", None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.code == "store_unavailable"
    assert "full" in raised.value.message


def _tar(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"data"))
    return buffer.getvalue()


def test_uploads_are_refused_before_they_are_taken(yard: Yard) -> None:
    """Size (told and real), form, encoding and names are checked; a model's refusal is 422; nothing stays behind."""
    target = "/v1/models/oak/versions"
    object.__setattr__(
        yard.services.settings, "models", yard.services.settings.models.model_copy(update={"max_version_bytes": 100})
    )
    refused(yard.ask("POST", target, b"x", content_length="101"), 413, "body_too_large", "models.max_version_bytes")
    refused(yard.ask("POST", target, b"x" * 101), 413, "body_too_large", "models.max_version_bytes")
    refused(yard.ask("POST", target, b"x", content_type="text/html"), 415, "content_type_unsupported", "content-type")
    refused(yard.ask("POST", target, b"x", content_encoding="gzip"), 415, "encoding_unsupported", "content-encoding")
    refused(yard.ask("POST", target, b"x", x_modelyard_filename="../x"), 400, "name_invalid", "x-modelyard-filename")
    refused(yard.ask("PUT", target + "/a..b", b"x"), 400, "name_invalid", "version")
    yard.publisher.refuse = PublishError("model_empty", "The model is empty.")
    refused(yard.ask("POST", target, b"x"), 422, "model_empty")
    assert list((yard.services.settings.data / "uploads").iterdir()) == []


def test_the_log_is_paged_filtered_and_counted(yard: Yard) -> None:
    """Newest first, cursor by cursor, each record once; filters count what they list."""
    ids: list[str] = []
    cursor = ""
    while cursor is not None:
        page = yard.ask("GET", f"/v1/predictions?limit=1{cursor and '&cursor=' + cursor}", scope="audit").json()
        ids += [record["id"] for record in page["predictions"]]
        cursor = page["next_cursor"]
    assert ids == ["p0", "p1", "p2"]
    for query, count in (
        ("", 3), ("?status=200", 2), ("?status=4xx", 1), ("?status=2", 2), ("?model=oak", 0), ("?client=acme", 3),
        ("?since=90s", 2), ("?until=60s", 1), ("?since=2001-01-01T00:00:00Z", 3), ("?until=1000000000", 0),
        ("?version=1&endpoint=tree", 3),
    ):  # fmt: skip
        assert yard.ask("GET", f"/v1/predictions/count{query}", scope="audit").json() == {"count": count}, query
    assert yard.ask("GET", "/v1/predictions/p1").json()["id"] == "p1"
    refused(yard.ask("GET", "/v1/predictions/p9"), 404, "prediction_not_found")


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("limit=0", "parameter_invalid", "limit"),
        ("limit=1001", "parameter_invalid", "limit"),
        ("limit=ten", "field_type", "limit"),
        ("status=9xx", "parameter_invalid", "status"),
        ("since=yesterday", "parameter_invalid", "since"),
        ("modle=tree", "field_unknown", "modle"),
        ("cursor=!!", "cursor_invalid", "cursor"),
    ],
)
def test_a_wrong_filter_is_refused_by_name(yard: Yard, query: str, code: str, field: str) -> None:
    """A mistyped filter never means "all"."""
    refused(yard.ask("GET", f"/v1/predictions?{query}", scope="audit"), 400, code, field)


def test_the_log_is_exported_oldest_first(yard: Yard) -> None:
    """JSON Lines with an id each, CSV with the same rows; an unknown form is refused."""
    reply = yard.ask("GET", "/v1/predictions/export", scope="audit")
    assert reply.headers["content-type"] == "application/jsonl"
    assert [json.loads(line)["id"] for line in reply.body.splitlines()] == ["p2", "p1", "p0"]
    reply = yard.ask("GET", "/v1/predictions/export?format=csv&status=2xx", scope="audit")
    rows = list(csv.DictReader(io.StringIO(reply.body.decode())))
    assert [row["id"] for row in rows] == ["p2", "p1"]
    assert json.loads(rows[0]["inputs"]) == {"x": [[1.0, 2.0]]}
    assert rows[0]["total_us"] == "40"
    refused(yard.ask("GET", "/v1/predictions/export?format=xml", scope="audit"), 400, "parameter_invalid", "format")


def test_health_tells_the_truth(yard: Yard) -> None:
    """Ready is 200 with both words, else 503 with the reason in our form; live is an answer."""
    assert yard.ask("GET", "/v2/health/live", scope="none").json() == {"live": True}
    assert yard.ask("GET", "/v2/health/ready", scope="none").json() == {"ready": True, "live": True}
    yard.reason = "the models are being loaded"
    reply = yard.ask("GET", "/v2/health/ready", scope="none")
    refused(reply, 503, "model_not_ready")
    assert (reply.json()["ready"], reply.json()["reason"]) == (False, yard.reason)
    assert int(reply.headers["retry-after"]) >= 1


def test_the_protocol_describes_server_and_models(yard: Yard) -> None:
    """The Open Inference Protocol's metadata and readiness, with and without a version."""
    for path in ("/v2", "/v2/"):
        assert yard.ask("GET", path, scope="none").json().keys() == {"name", "version", "extensions"}
    for path in ("/v2/models/tree", "/v2/models/tree/versions/2"):
        model = yard.ask("GET", path, scope="predict").json()
        assert (model["name"], model["versions"], model["platform"]) == ("tree", ["1", "2"], "modelyard_stub")
        assert model["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 2], "columns": ["a", "b"]}
        assert yard.ask("GET", f"{path}/ready", scope="predict").json() == {"name": "tree", "ready": True}
    yard.loaded = (("tree", "2"),)
    assert yard.ask("GET", "/v2/models/tree/versions/2/ready", scope="predict").status == 200
    refused(yard.ask("GET", "/v2/models/tree/ready", scope="predict"), 503, "model_not_ready")
    refused(yard.ask("GET", "/v2/models/tree/versions/1/ready", scope="predict"), 503, "model_not_ready")
    for path in ("/v2/models/oak", "/v2/models/oak/ready"):
        refused(yard.ask("GET", path, scope="predict"), 404, "model_not_found")
    for path in ("/v2/models/tree/versions/9", "/v2/models/tree/versions/9/ready"):
        refused(yard.ask("GET", path, scope="predict"), 404, "version_not_found")
