"""Whether a model answers, as TensorFlow Serving's clients and KServe's V1 client read it."""

from __future__ import annotations

from typing import Any

from yard_support import Yard

OK = {"error_code": "OK", "error_message": ""}


def states(said: Any) -> dict[str, str]:
    return {entry["version"]: entry["state"] for entry in said["model_version_status"]}


def test_a_key_that_may_predict_learns_the_state_and_nothing_else(yard: Yard) -> None:
    """Both versions, in TensorFlow Serving's form; no digest, file or traffic of the administrator's view."""
    said = yard.ask("GET", "/v1/models/tree", scope="predict").json()
    assert said.keys() == {"name", "ready", "model_version_status"}
    assert said["model_version_status"][0] == {"version": "1", "state": "AVAILABLE", "status": OK}
    assert (said["ready"], states(said)) == (True, {"1": "AVAILABLE", "2": "AVAILABLE"})
    one = yard.ask("GET", "/v1/models/tree/versions/2", scope="predict").json()
    assert (one["ready"], states(one)) == (True, {"2": "AVAILABLE"})


def test_what_is_not_loaded_is_not_ready(yard: Yard) -> None:
    """LOADING, and `ready` false where it gets traffic; an administrator sees the same beside the resource."""
    yard.loaded = (("tree", "2"),)
    for scope in ("predict", "admin"):
        said = yard.ask("GET", "/v1/models/tree", scope=scope).json()
        assert (said["ready"], states(said)) == (False, {"1": "LOADING", "2": "AVAILABLE"})
        one = yard.ask("GET", "/v1/models/tree/versions/1", scope=scope).json()
        assert (one["ready"], states(one)) == (False, {"1": "LOADING"})
    assert yard.ask("GET", "/v1/models/tree").json()["endpoints"]


def test_what_is_not_there_and_what_is_not_allowed(yard: Yard) -> None:
    """404 by name; 403 without either scope, and for another model."""
    for path in ("/v1/models/none", "/v1/models/none/versions/1", "/v1/models/tree/versions/9"):
        assert yard.ask("GET", path, scope="predict").status == 404
    for scope in ("audit", "metrics", "oak"):
        assert yard.ask("GET", "/v1/models/tree", scope=scope).status == 403


def test_alive(yard: Yard) -> None:
    """KServe's V1 client asks for the root, without a key."""
    assert yard.ask("GET", "/", scope="none").json() == {"status": "alive"}
