"""Triton's statistics extension: what happened to each version since the start, over all workers of this host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from modelyard.auth.scopes import Scope
from modelyard.core.errors import NotFoundError
from modelyard.http.processes.tally import Counts
from modelyard.http.routes.asked import ModelName, VersionName
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, scope
from modelyard.http.routes.oip import Table
from modelyard.http.routes.triton.forms import StatisticsAnswer
from modelyard.routing.ports import Endpoint
from modelyard.routing.table import RoutingTable

routes = RouteTable("statistics")

CountsByVersion = Mapping[tuple[str, str], Counts]
NONE = Counts()


async def _counts(request: Request) -> CountsByVersion:
    ask: Callable[[], CountsByVersion] = request.app.state.counts
    return ask()


Counted = Annotated[CountsByVersion, Depends(_counts)]
"""The counters of this host, now."""


@routes.get("/v2/models/stats", StatisticsAnswer)
@scope(Scope.PREDICT)
async def all_statistics(table: Table, caller: Caller, counted: Counted) -> Response:
    """Every loaded version behind the endpoints that this key may see."""
    visible = [endpoint for name, endpoint in sorted(table.endpoints.items()) if caller.models.allows(name)]
    return _answer(stats for endpoint in visible for stats in _of_endpoint(table, endpoint, counted))


@routes.get("/v2/models/{model}/stats", StatisticsAnswer)
@scope(Scope.PREDICT)
async def model_statistics(table: Table, counted: Counted, model: ModelName) -> Response:
    """Every loaded version of a model."""
    return _answer(_of_endpoint(table, _endpoint(table, model), counted))


@routes.get("/v2/models/{model}/versions/{version}/stats", StatisticsAnswer)
@scope(Scope.PREDICT)
async def version_statistics(table: Table, counted: Counted, model: ModelName, version: VersionName) -> Response:
    """One version."""
    table.route(model, version, "")
    return _answer([_statistics(model, version, counted.get((_endpoint(table, model).model, version), NONE))])


def _endpoint(table: RoutingTable, name: str) -> Endpoint:
    endpoint = table.endpoints.get(name)
    if endpoint is None:
        raise NotFoundError("model_not_found", f"There is no model `{name}`.", field="model", got=name)
    return endpoint


def _answer(statistics: Any) -> Response:
    return JsonResponse({"model_stats": list(statistics)})


def _of_endpoint(table: RoutingTable, endpoint: Endpoint, counted: CountsByVersion) -> Iterator[dict[str, Any]]:
    for version in table.versions(endpoint.model):
        key = (endpoint.model, version)
        if key in table.servables:
            yield _statistics(endpoint.name, version, counted.get(key, NONE))


def _statistics(name: str, version: str, counts: Counts) -> dict[str, Any]:
    good = counts.success
    return {
        "name": name,
        "version": version,
        "last_inference": counts.last_ms,
        "inference_count": counts.inferences,
        "execution_count": counts.runs,
        "inference_stats": {
            "success": _duration(good, counts.success_ns),
            "fail": _duration(counts.fail, counts.fail_ns),
            "queue": _duration(good, counts.queue_ns),
            "compute_input": _duration(good, 0),
            "compute_infer": _duration(good, counts.infer_ns),
            "compute_output": _duration(good, counts.output_ns),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(runs, 0),
                "compute_infer": _duration(runs, run_ns),
                "compute_output": _duration(runs, 0),
            }
            for size, (runs, run_ns) in sorted(counts.sizes.items())
        ],
        "memory_usage": [],
    }


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
