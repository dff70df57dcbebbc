"""Memory over HTTP: traffic that would not fit is refused with its numbers, and loads are shown step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from yard_support import Yard

from modelyard.core.settings import load_settings
from modelyard.http.processes.loads import LoadFiles
from modelyard.models.loads.admission import Admission
from modelyard.models.loads.timeline import Step, Timeline


def test_traffic_that_would_not_fit_is_409_with_numbers(yard: Yard, tmp_path: Path) -> None:
    """Nothing changes; a change that adds no version is made, however little memory there is."""
    settings = load_settings(data=tmp_path / "data", workers=1, **{"models.memory_bytes": 3 * 1024**2})
    admission = Admission(settings, yard.stores.registry, lambda: {("tree", "1")})
    yard.app.state.services = replace(yard.services, admission=admission)
    path = "/v1/endpoints/tree/traffic"
    before = yard.ask("GET", path).json()
    refused = yard.ask("PUT", path, {"weights": {"1": 50, "2": 50}})
    assert (refused.status, refused.json()["code"]) == (409, "memory_insufficient")
    told = refused.json()["detail"]
    assert told["field"] == "models.memory_bytes"
    assert told["needs_bytes"] + told["held_bytes"] > told["has_bytes"] == 3 * 1024**2
    assert set(told["held_by"]) == {"tree/1"}
    assert yard.ask("GET", path).json() == before
    assert yard.ask("PUT", path, {"weights": {"1": 100}}).status == 200
    assert yard.ask("PUT", "/v1/endpoints/none/traffic", {"weights": {"1": 100}}).status == 404


def test_a_versions_loads_are_shown_to_administrators(yard: Yard, tmp_path: Path) -> None:
    """Each worker's newest load, its steps with their rate; a key that may only predict sees none of it."""
    files = LoadFiles(tmp_path / "loads")
    files.clear()
    steps = (Step("wait", 0.0, 0.25), Step("download", 0.25, 2.0, 50_000_000))
    files.writer(1)((Timeline("tree", "1", 1_700_000_000.0, "failed", steps, 2.25, "store_unavailable", "Away."),))
    yard.app.state.services = replace(yard.services, loads=files)
    (load,) = yard.ask("GET", "/v1/models/tree/versions/1").json()["loads"]
    assert load == {
        "worker": 1, "state": "failed", "begun_at": "2023-11-14T22:13:20Z", "total_s": 2.25,
        "code": "store_unavailable", "reason": "Away.",
        "steps": [
            {"name": "wait", "start_s": 0.0, "duration_s": 0.25, "size_bytes": None, "mb_per_s": None},
            {"name": "download", "start_s": 0.25, "duration_s": 2.0, "size_bytes": 50_000_000, "mb_per_s": 25.0},
        ],
    }  # fmt: skip
    assert yard.ask("GET", "/v1/models/tree/versions/2").json()["loads"] == []
    assert "loads" not in yard.ask("GET", "/v1/models/tree/versions/1", scope="predict").json()
