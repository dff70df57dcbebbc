"""Whether a model answers, as TensorFlow Serving's and KServe's V1 clients read it."""

from __future__ import annotations

from typing import Any

from modelyard.routing.table import RoutingTable

OK = {"error_code": "OK", "error_message": ""}
UNHEALTHY = {"error_code": "UNAVAILABLE", "error_message": "Workers died in its runs; an operator can revive it."}


def model_status(table: RoutingTable, name: str, model: str) -> dict[str, Any]:
    """All versions of a model; `ready` if every one that the endpoint of this name gives traffic is loaded."""
    endpoint = table.endpoints.get(name)
    given = [version for version, share in endpoint.weights if share > 0] if endpoint else []
    ready = bool(given) and all((model, version) in table.servables for version in given)
    return _status(table, model, table.versions(model), ready)


def version_status(table: RoutingTable, model: str, version: str) -> dict[str, Any]:
    """One version; `ready` if it is loaded."""
    return _status(table, model, [version], (model, version) in table.servables)


def _status(table: RoutingTable, model: str, versions: list[str], ready: bool) -> dict[str, Any]:
    said = [{"version": version, **_state(table, model, version)} for version in versions]
    return {"ready": ready, "model_version_status": said}


def _state(table: RoutingTable, model: str, version: str) -> dict[str, Any]:
    """The state's name is TensorFlow Serving's (get_model_status.proto)."""
    if (model, version) in table.servables:
        return {"state": "AVAILABLE", "status": OK}
    if (model, version) in table.unhealthy:
        return {"state": "END", "status": UNHEALTHY}
    return {"state": "LOADING", "status": OK}
