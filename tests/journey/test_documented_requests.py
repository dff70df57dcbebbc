"""The documentation of a running server is true: each example in it is sent, and answered."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator
from server import RunningServer

MODELS = {"cancer", "digits", "words", "simple", "divide"}


def test_every_example_is_answered(server: RunningServer, client_key: str) -> None:
    """Each model's document, and the whole one, hold the same requests; every one answers 200, as its schema says."""
    whole = server.ask("GET", "/openapi.json", key=client_key).json
    sent = 0
    for model in sorted(MODELS):
        own = server.ask("GET", f"/v1/models/{model}/openapi.json", key=client_key).json
        assert f"/v2/models/{model}/infer" in own["paths"]
        for path, item in own["paths"].items():
            assert path == "/invocations" or whole["paths"][path] == item
            sent += _send_all(server, client_key, path, item["post"])
    print(f"{sent} examples sent and answered")
    assert sent >= 3 * len(MODELS)


def _send_all(server: RunningServer, key: str, path: str, operation: dict[str, Any]) -> int:
    body = operation["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        Draft202012Validator(body["schema"]).validate(example["value"])
        query = "&".join(f"{p['name']}={p['schema']['const']}" for p in operation.get("parameters", ()))
        reply = server.ask("POST", f"{path}?{query}" if query else path, example["value"], key=key)
        assert reply.status == 200, (path, reply.body)
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator(schema).validate(reply.json)
        assert b'"error"' not in reply.body, (path, reply.body)
    return len(body["examples"])


def test_the_page_and_the_document_need_no_key(server: RunningServer) -> None:
    """Anybody may read how the API works; nobody learns which models there are."""
    page = server.ask("GET", "/docs", key=None)
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    document = server.ask("GET", "/openapi.json", key=None)
    assert document.status == 200
    assert not any(model.encode() in document.body for model in ("cancer", "divide"))
    assert server.ask("GET", "/openapi.json", key="mdy_wrong").status == 401
