"""Triton's repository and statistics extensions, and `/ping`, over the public fakes."""

from __future__ import annotations

from typing import Any

import pytest
from yard_support import Yard

from modelyard.http.processes.tally import Counts

INDEX = "/v2/repository/index"


def states(yard: Yard, body: Any = b"", scope: str = "predict") -> list[tuple[str, str, str]]:
    reply = yard.ask("POST", INDEX, body, scope=scope)
    assert reply.status == 200, reply.body
    return [(entry["name"], entry["version"], entry["state"]) for entry in reply.json()]


def test_the_index_says_what_answers(yard: Yard) -> None:
    """Every version with its state and why it does not answer; `ready` leaves out what does not; an empty body and
    none of a content type are taken (tritonclient sends neither)."""
    yard.loaded = (("tree", "2"),)
    whole = [("tree", "1", "UNAVAILABLE"), ("tree", "2", "READY")]
    assert states(yard) == states(yard, {}) == states(yard, {"ready": False}) == whole
    assert states(yard, {"ready": True}) == [("tree", "2", "READY")]
    reasons = [entry["reason"] for entry in yard.ask("POST", INDEX, scope="predict").json()]
    assert "not loaded" in reasons[0]
    assert reasons[1] == ""


def test_the_index_shows_a_key_its_models(yard: Yard) -> None:
    """A key that is bound to other models sees none of these, in index and statistics alike."""
    assert states(yard, scope="oak") == []
    assert yard.ask("GET", "/v2/models/stats", scope="oak").json() == {"model_stats": []}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"ready": "yes"}, "field_type", "ready"),
        ([], "field_type", "body"),
        ({"more": 1}, "field_unknown", "more"),
        (b"{", "json_invalid", "body"),
        (b'{"ready":true,"ready":false}', "json_duplicate_key", "ready"),
    ],
)
def test_a_wrong_index_request_is_refused(yard: Yard, body: Any, code: str, field: str) -> None:
    """In our form, with the field's name."""
    reply = yard.ask("POST", INDEX, body, scope="predict")
    assert reply.status == 400
    assert (reply.json()["code"], reply.json()["detail"]["field"]) == (code, field)


def test_load_says_whether_all_traffic_is_answered(yard: Yard) -> None:
    """200 when it is, 503 with the reason until then, 404 for no model; nothing can be handed in."""
    load = "/v2/repository/models/tree/load"
    assert yard.ask("POST", load).status == 200
    assert yard.ask("POST", load, {"parameters": {}}).status == 200
    assert yard.ask("POST", load, {"parameters": {"config": "{}"}}).json()["code"] == "parameter_invalid"
    assert yard.ask("POST", "/v2/repository/models/oak/load").json()["code"] == "model_not_found"
    yard.loaded = ()
    reply = yard.ask("POST", load)
    assert (reply.status, reply.json()["code"]) == (503, "model_not_ready")
    assert int(reply.headers["retry-after"]) >= 1


def test_what_has_traffic_is_not_unloaded(yard: Yard) -> None:
    """409 with a sentence that says what to do; what is not loaded is unloaded already."""
    unload = "/v2/repository/models/tree/unload"
    reply = yard.ask("POST", unload, {"parameters": {"unload_dependents": False}})
    assert (reply.status, reply.json()["code"]) == (409, "model_in_traffic")
    assert "give the traffic to another version" in reply.json()["error"]
    yard.loaded = ()
    assert yard.ask("POST", unload).status == 200


def test_statistics_are_the_counts(yard: Yard) -> None:
    """Triton's form of what was counted, by model and version; nothing counted is nought; unknown ones are 404."""
    counts = Counts(3, 900, 1, 50, 300, 500, 100, 5, 2, 1_700_000_000_000, {1: (1, 200), 4: (1, 300)})
    yard.app.state.counts = lambda: {("tree", "1"): counts}
    said = yard.ask("GET", "/v2/models/tree/versions/1/stats", scope="predict").json()
    (one,) = said["model_stats"]
    assert (one["name"], one["version"], one["last_inference"]) == ("tree", "1", 1_700_000_000_000)
    assert (one["inference_count"], one["execution_count"]) == (5, 2)
    assert one["inference_stats"]["success"] == {"count": 3, "ns": 900}
    assert one["inference_stats"]["fail"] == {"count": 1, "ns": 50}
    assert one["inference_stats"]["queue"] == {"count": 3, "ns": 300}
    assert [(batch["batch_size"], batch["compute_infer"]) for batch in one["batch_stats"]] == [
        (1, {"count": 1, "ns": 200}),
        (4, {"count": 1, "ns": 300}),
    ]
    for path in ("/v2/models/stats", "/v2/models/tree/stats"):
        first, second = yard.ask("GET", path, scope="predict").json()["model_stats"]
        assert first == one
        assert (second["version"], second["inference_count"], second["batch_stats"]) == ("2", 0, [])
    for path in ("/v2/models/oak/stats", "/v2/models/tree/versions/9/stats"):
        assert yard.ask("GET", path, scope="predict").status == 404


def test_ping_is_readiness(yard: Yard) -> None:
    """200 or 503 without a key, as SageMaker and MLflow ask."""
    assert yard.ask("GET", "/ping", scope="none").status == 200
    yard.reason = "the models are being loaded"
    reply = yard.ask("GET", "/ping", scope="none")
    assert (reply.status, reply.json()["reason"]) == (503, yard.reason)
