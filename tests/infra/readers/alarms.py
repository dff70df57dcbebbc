"""Reads CloudWatch alarms of a plan in one shape, whether they watch a metric or an expression over several."""

from __future__ import annotations

import json
from dataclasses import dataclass

from infraproof.plan import Plan, Resource, listed


@dataclass(frozen=True)
class Alarm:
    """What an alarm watches, when it fires and whom it tells."""

    resource: Resource
    metrics: frozenset[str]
    statistics: frozenset[str]
    threshold: float | None
    text: str

    @property
    def pages(self) -> bool:
        """True when the alarm tells somebody."""
        return self.resource.is_set("alarm_actions")


def alarm_of(resource: Resource) -> Alarm:
    """Read one aws_cloudwatch_metric_alarm."""
    queries = [block for query in resource.blocks("metric_query") for block in listed(query.get("metric"))]
    sources = [resource.values, *queries]
    metrics = {str(source["metric_name"]) for source in sources if source.get("metric_name")}
    keys = ("stat", "statistic", "extended_statistic")
    statistics = {str(source[key]) for source in sources for key in keys if source.get(key)}
    text = json.dumps(resource.values, default=str)
    return Alarm(resource, frozenset(metrics), frozenset(statistics), resource.get("threshold"), text)


def alarms(plan: Plan) -> list[Alarm]:
    """Every metric alarm of the plan."""
    return [alarm_of(resource) for resource in plan.of("aws_cloudwatch_metric_alarm")]


def alarms_on(plan: Plan, *metrics: str) -> list[Alarm]:
    """The alarms that watch all of these metrics (alone or in an expression)."""
    return [alarm for alarm in alarms(plan) if set(metrics) <= alarm.metrics]
