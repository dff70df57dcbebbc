"""Figures over HTTP: who may see which, what is asked and refused, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from test_management import refused
from yard_support import Yard

from modelyard.journal.ports import SpoolPosition
from modelyard.testing import prediction_record

REQUESTS = "/v1/analytics/requests"


def fill(yard: Yard) -> None:
    """Forty predictions of two versions, each second one of the second version fails."""
    made = [
        prediction_record(
            f"q{n}", yard.clock.now() - 7200 - n, version=str(1 + n % 2), model="oak", endpoint="oak-live",
            client=f"c{n % 4}", status=500 if n % 4 == 3 else 200, total_us=100 + n, outputs={"p": [[0.1 * (n % 2)]]},
        )
        for n in range(40)
    ]  # fmt: skip
    yard.stores.sink.store(made, SpoolPosition("f", 2))


def ask(yard: Yard, query: str, path: str = REQUESTS, scope: str = "audit") -> Any:
    reply = yard.ask("GET", f"{path}?{query}", scope=scope)
    assert reply.status == 200, reply.body
    return reply.json()


def test_figures_by_name_and_time(yard: Yard) -> None:
    """The largest group first, or along the time; a name that was not asked for is null; the rest is counted."""
    fill(yard)
    whole = ask(yard, "by=model")
    assert [(one["model"], one["requests"]) for one in whole["groups"]] == [("oak", 40), ("tree", 3)]
    assert whole["groups"][0]["version"] is None
    oak = whole["groups"][0]
    assert (oak["server_errors"], oak["error_rate"], oak["answered"], oak["items"]) == (10, 0.25, 30, 40)
    assert oak["latency"]["p50_us"] == pytest.approx(118, rel=1 / 64)
    limited = ask(yard, "by=client&model=oak&limit=1")
    assert (len(limited["groups"]), limited["left_out"]) == (1, 3)
    hours = ask(yard, "interval=hour&by=version")["groups"]
    assert [one["time"] for one in hours] == sorted(one["time"] for one in hours)
    assert sum(one["requests"] for one in hours) == 43


def test_a_key_sees_its_models_alone(yard: Yard) -> None:
    """A key that is bound to some models must name one of them; the scope is that of the log."""
    fill(yard)
    for scope in ("predict", "metrics"):
        refused(yard.ask("GET", REQUESTS, scope=scope), 403, "scope_missing")
    refused(yard.ask("GET", REQUESTS, scope="oak"), 403, "model_not_allowed")
    refused(yard.ask("GET", f"{REQUESTS}?model=tree", scope="oak"), 403, "model_not_allowed")
    refused(yard.ask("GET", "/v1/analytics/models/tree/scores", scope="oak"), 403, "model_not_allowed")
    assert ask(yard, "model=oak", scope="oak")["groups"][0]["requests"] == 40


@pytest.mark.parametrize(
    ("query", "field"),
    [("by=subject", "by"), ("by=model,model", "by"), ("interval=week", "interval"), ("since=1h&until=2h", "since"),
     ("interval=minute&since=3d", "interval"),
     ("since=yesterday", "since"), ("limit=0", "limit"), ("limit=5001", "limit"), ("status=500", "status")],
)  # fmt: skip
def test_a_wrong_question_is_named(yard: Yard, query: str, field: str) -> None:
    """400 that says which parameter, and what it takes."""
    code = "field_unknown" if field == "status" else "parameter_invalid"
    refused(yard.ask("GET", f"{REQUESTS}?{query}"), 400, code, field)


def test_two_versions_beside_each_other(yard: Yard) -> None:
    """Figures of both, the difference with its interval, drift of each output; a version without requests is empty."""
    fill(yard)
    found = ask(yard, "base=1&other=2", "/v1/analytics/models/oak/comparison")
    assert (found["base"]["requests"], found["other"]["requests"]) == (20, 20)
    difference = found["error_rate_difference"]
    assert (difference["difference"], difference["low"] > 0, difference["high"] < 1) == (0.5, True, True)
    (output,) = found["outputs"]
    assert (output["output"], output["base"]["numbers"]["mean"], output["drift"]["distance"]) == ("p", 0.0, 1.0)
    none = ask(yard, "base=1&other=9", "/v1/analytics/models/oak/comparison")
    assert (none["other"]["requests"], none["error_rate_difference"], none["outputs"][0]["drift"]) == (0, None, None)
    (p1, p2) = ask(yard, "", "/v1/analytics/models/oak/scores")["outputs"]
    assert (p1["count"], sum(one["count"] for one in p2["numbers"]["bins"])) == (20, 10)
