"""Volumes, errors, latency and scores, and two versions beside each other (DATA-3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field

from modelyard.auth.scopes import Scope
from modelyard.http.forms.figures import (
    DEFAULT_GROUPS,
    MAX_GROUPS,
    comparison_view,
    desk_of,
    requests_view,
    scores_view,
)
from modelyard.http.resource.figures import ComparisonAnswer, RequestsAnswer, ScoresAnswer
from modelyard.http.routes.asked import Asked, ModelName
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope

routes = RouteTable("analytics")


class TimeQuery(Asked):
    """Of which time, and of which model."""

    since: str = Field("24h", max_length=64, description="ISO 8601, UNIX seconds, or a duration before now.")
    until: str | None = Field(None, max_length=64, description="As `since`; exclusive. Now if unset.")

    def texts(self) -> dict[str, Any]:
        """The parameters as forms read them."""
        return {name: None if value is None else str(value) for name, value in self.model_dump().items()}


class RequestsQuery(TimeQuery):
    """Which requests, and what to tell apart."""

    by: str = Field(
        "", max_length=64, description="Some of endpoint, model, version, client.", examples=["model,version"]
    )
    interval: Literal["minute", "hour", "day"] | None = Field(None, description="One group for each, UTC.")
    model: str | None = Field(None, max_length=255)
    version: str | None = Field(None, max_length=255)
    client: str | None = Field(None, max_length=255)
    endpoint: str | None = Field(None, max_length=255)
    limit: int = Field(DEFAULT_GROUPS, ge=1, le=MAX_GROUPS, description="Most groups; the largest are given.")


class ScoresQuery(TimeQuery):
    """Of which version."""

    version: str | None = Field(None, max_length=255, description="One version; all if unset.")


class ComparisonQuery(TimeQuery):
    """Which two versions of a model."""

    base: str = Field(max_length=255, description="The version that is compared with.", examples=["1"])
    other: str = Field(max_length=255, description="The version that is compared.", examples=["2"])


@routes.get("/v1/analytics/requests", RequestsAnswer, refusals=(409,))
@scope(Scope.AUDIT)
def show_requests(services: Wired, caller: Caller, asked: Annotated[RequestsQuery, Query()]) -> Response:
    """Volumes, errors and latency of requests, by what is named: the largest groups, or along the time."""
    if asked.endpoint or asked.model:
        caller.require(Scope.AUDIT, asked.endpoint or asked.model)
    else:
        require_every_model(caller)
    return JsonResponse(requests_view(desk_of(services.analytics), asked.texts(), services.clock.now()))


@routes.get("/v1/analytics/models/{model}/scores", ScoresAnswer, refusals=(409,))
@scope(Scope.AUDIT)
def show_scores(services: Wired, model: ModelName, asked: Annotated[ScoresQuery, Query()]) -> Response:
    """How the outputs of a model's versions are distributed."""
    wanted = {**asked.texts(), "model": model}
    return JsonResponse(scores_view(desk_of(services.analytics), wanted, services.clock.now()))


@routes.get("/v1/analytics/models/{model}/comparison", ComparisonAnswer, refusals=(409,))
@scope(Scope.AUDIT)
def compare_versions(services: Wired, model: ModelName, asked: Annotated[ComparisonQuery, Query()]) -> Response:
    """Two versions of a model in the same time: figures, the difference of their error rates, drift of each output."""
    wanted = {**asked.texts(), "model": model}
    return JsonResponse(comparison_view(desk_of(services.analytics), wanted, services.clock.now()))
