"""PERF-1 to PERF-5: scaling, spikes, cold starts, one region, availability."""

from __future__ import annotations

import json
import math
import re

from infraproof.plan import Plan, Resource
from readers.alarms import alarms_on
from readers.service import functions

from checks.registry import Problems, at_least, check, each, exactly, on_ec2, on_ecs, on_lambda, with_image

SPIKE = 5
BUSY = 0.7
REPLICAS = ("aws_dynamodb_table_replica", "aws_s3_bucket_replication_configuration", "aws_dynamodb_global_table")


def policies(plan: Plan) -> list[Resource]:
    """Every scaling policy."""
    return plan.of("aws_appautoscaling_policy")


def predefined(plan: Plan) -> set[str]:
    """The predefined metrics that scaling tracks."""
    path = "target_tracking_scaling_policy_configuration.predefined_metric_specification.predefined_metric_type"
    return {str(policy.get(path)) for policy in policies(plan) if policy.get(path)}


@check("PERF-1", on_ecs)
def tasks_scale_on_cpu_and_memory(plan: Plan) -> Problems:
    """Tasks are added on CPU and on memory, both."""
    wanted = {"ECSServiceAverageCPUUtilization", "ECSServiceAverageMemoryUtilization"}
    return [f"nothing tracks {name}" for name in sorted(wanted - predefined(plan))]


@check("PERF-1", on_lambda)
def concurrency_follows_use(plan: Plan) -> Problems:
    """Provisioned concurrency follows its own utilisation."""
    if (plan.variable("lambda") or {}).get("start") not in (None, "provisioned"):
        return []
    wanted = "LambdaProvisionedConcurrencyUtilization"
    targets = plan.of("aws_lambda_provisioned_concurrency_config")
    tracked = wanted in predefined(plan) or wanted.removeprefix("Lambda") in json.dumps(
        [p.values for p in policies(plan)], default=str
    )
    return at_least(1, targets, "provisioned concurrency") + ([] if tracked else [f"nothing tracks {wanted}"])


@check("PERF-1", on_ecs)
def requests_are_counted_over_both_colours(plan: Plan) -> Problems:
    """Requests per task are summed over both target groups; the metric of one group is blind half of the time."""
    metrics = [json.dumps(p.values, default=str) for p in policies(plan)]
    summed = [text for text in metrics if text.count("RequestCount") >= 2]
    problems = at_least(1, summed, "policy on the requests of both target groups")
    return problems + (
        ["tracks the requests of one target group"] if "ALBRequestCountPerTarget" in predefined(plan) else []
    )


@check("PERF-2", with_image)
def spike_fits_below_the_ceiling(plan: Plan) -> Problems:
    """The ceiling is five times the floor, or holds the declared peak by the headroom formula."""
    load, sizing = plan.variable("load") or {}, plan.variable("sizing") or {}
    rps = (load.get("peak_requests_per_minute") or 10_000) / 60
    vcpu = (sizing.get("cpu") or 2048) / 1024
    tasks = math.ceil(rps * (load.get("cpu_ms_per_request") or 10) / 1000 / (BUSY * vcpu))
    targets = plan.of("aws_appautoscaling_target")
    return [
        *(at_least(1, targets, "scaling target") if scales(plan) else []),
        *each(
            targets,
            lambda item: item.get("max_capacity") >= min(SPIKE * item.get("min_capacity"), max(2, tasks)),
            f"its ceiling holds neither {SPIKE} times its floor nor the declared peak ({tasks} tasks)",
        ),
        *each(targets, lambda item: item.get("max_capacity") > item.get("min_capacity"), "can't grow"),
    ]


def scales(plan: Plan) -> bool:
    """False only for a function whose environments AWS alone manages."""
    return plan.on_ecs or (plan.variable("lambda") or {}).get("start") in (None, "provisioned")


@check("PERF-2", on_ecs)
def burst_is_seen_within_seconds(plan: Plan) -> Problems:
    """A ten-second alarm on the service's own saturation adds tasks by steps, long before minute metrics move."""
    fast = [a for a in alarms_on(plan, "Saturation") if int(a.resource.get("period") or 60) <= 10]
    fast += [a for a in alarms_on(plan, "Saturation") if '"period": 10' in a.text and a not in fast]
    steps = [p for p in policies(plan) if p.get("policy_type") == "StepScaling"]
    return [
        *at_least(1, fast, "ten-second alarm on Saturation"),
        *at_least(1, steps, "step scaling policy"),
        *each(steps, lambda item: adds(item) > 0, "adds nothing"),
    ]


def adds(policy: Resource) -> int:
    """The largest step of a step scaling policy."""
    steps = [
        int(step.get("scaling_adjustment") or 0)
        for block in policy.blocks("step_scaling_policy_configuration")
        for step in block.get("step_adjustment") or []
    ]
    return max(steps, default=0)


@check("PERF-3", on_ecs)
def new_tasks_serve_soon(plan: Plan) -> Problems:
    """A new task is healthy after two probes five seconds apart at most, and probes ask for readiness."""
    groups = plan.of("aws_lb_target_group")
    return [
        *each(groups, lambda item: int(item.get("health_check.interval") or 30) <= 5, "must probe every 5 s"),
        *each(
            groups, lambda item: int(item.get("health_check.healthy_threshold") or 3) <= 2, "must need 2 probes at most"
        ),
        *each(groups, lambda item: item.get("health_check.path") == "/v2/health/ready", "must ask for readiness"),
    ]


@check("PERF-3", lambda plan: on_ec2(plan) and plan.has_image)
def instances_wait_prepared(plan: Plan) -> Problems:
    """EC2 keeps images cached and instances prepared: the branch that guarantees a start within 30 s."""
    groups, texts = plan.of("aws_autoscaling_group"), [json.dumps(b.text) for b in plan.blocks if "user_data" in b.text]
    cached = any("prefer-cached" in text for text in texts)
    return [
        *at_least(1, groups, "auto-scaling group"),
        *each(groups, lambda item: bool(item.blocks("warm_pool")) or not warm(plan), "needs a warm pool"),
        *([] if cached else ["instances must prefer cached images"]),
    ]


def warm(plan: Plan) -> int:
    """How many prepared instances were asked for."""
    value = (plan.variable("ec2") or {}).get("warm")
    return 1 if value is None else int(value)


@check("PERF-3", on_lambda)
def start_mode_is_single(plan: Plan) -> Problems:
    """Provisioned concurrency and SnapStart exclude each other: exactly what was asked for is planned."""
    start = (plan.variable("lambda") or {}).get("start") or "provisioned"
    provisioned = plan.of("aws_lambda_provisioned_concurrency_config")
    snapped = [f for f in functions(plan) if f.get("snap_start.apply_on") == "PublishedVersions"]
    return exactly(1 if start == "provisioned" else 0, provisioned, f"provisioned concurrency for {start}") + exactly(
        1 if start == "snapstart" else 0, snapped, f"SnapStart for {start}"
    )


@check("PERF-3", on_ecs)
def architecture_is_declared(plan: Plan) -> Problems:
    """The task says for which processor its image was built."""
    wanted = (plan.variable("sizing") or {}).get("architecture") or "ARM64"
    tasks = plan.of("aws_ecs_task_definition")
    return each(tasks, lambda item: item.get("runtime_platform.cpu_architecture") == wanted, f"must run on {wanted}")


@check("PERF-4")
def one_region(plan: Plan) -> Problems:
    """One provider, one region, and nothing copied to another."""
    configurations = plan.raw.get("configuration", {}).get("provider_config", {})
    providers = [name for name in configurations if name.split(":")[-1].startswith("aws")]
    region = configurations.get("aws", {}).get("expressions", {}).get("region", {}).get("references", [])
    inside = [b for b in plan.blocks if b.kind == "provider" and "modules" in b.file.parts]
    elsewhere = [r for r in plan.resources if r.get("region") not in (None, plan.variable("region"))]
    return [
        *exactly(1, providers, "provider of aws"),
        *([] if region == ["var.region"] else ["the provider's region must come from var.region"]),
        *[f"{b.file.name}:{b.line}: a module has its own provider" for b in inside],
        *each(elsewhere, lambda _: False, "lies in another region"),
        *each(plan.of(*REPLICAS), lambda _: False, "copies to another region"),
        *each(plan.of("aws_dynamodb_table"), lambda item: not item.blocks("replica"), "copies to another region"),
    ]


@check("PERF-4")
def nothing_names_a_region(plan: Plan) -> Problems:
    """No module writes a region, an account or a partition into its code."""
    pattern = re.compile(r"\"[^\"]*\b((us|eu|ap|sa|ca|me|af)-[a-z]+-\d|arn:aws:|\d{12})\b[^\"]*\"")
    problems = []
    for block in plan.blocks:
        if "modules" not in block.file.parts or block.kind in ("variable", "output"):
            continue
        for number, line in enumerate(block.text.splitlines()):
            if pattern.search(line.split("#")[0]):
                problems.append(
                    f"{block.file.parent.name}/{block.file.name}:{block.line + number}: {line.strip()[:80]}"
                )
    return problems


def available(plan: Plan) -> bool:
    """True where high availability was asked for (its default)."""
    return plan.variable("high_availability") is not False


@check("PERF-5", lambda plan: available(plan) and plan.database != "dynamodb")
def database_has_a_standby(plan: Plan) -> Problems:
    """The database has a standby in another zone."""
    return each(plan.of("aws_db_instance"), lambda item: item.get("multi_az") is True, "needs a standby")


@check("PERF-5", lambda plan: available(plan) and plan.has_image)
def two_of_everything(plan: Plan) -> Problems:
    """At least two tasks or warm environments, and a second node of the counter."""
    groups = plan.of("aws_elasticache_replication_group")
    return [
        *each(plan.of("aws_appautoscaling_target"), lambda item: item.get("min_capacity") >= 2, "needs two at least"),
        *each(plan.of("aws_ecs_service"), lambda item: (item.get("desired_count") or 2) >= 2, "needs two at least"),
        *each(groups, lambda item: item.get("automatic_failover_enabled") is True, "must fail over by itself"),
        *each(groups, lambda item: (item.get("num_cache_clusters") or 0) >= 2, "needs a second node"),
    ]


@check("PERF-5", with_image)
def burn_rates_page(plan: Plan) -> Problems:
    """Composite alarms join a long and a short window of the error budget's burn rate, so that only real loss pages."""
    rules = [c for c in plan.of("aws_cloudwatch_composite_alarm") if " AND " in str(c.get("alarm_rule"))]
    paging = [c for c in rules if c.is_set("alarm_actions")]
    return at_least(2, paging, "composite burn-rate alarm, fast and slow")


@check("PERF-5", on_ecs)
def healthy_hosts_are_counted_over_both_colours(plan: Plan) -> Problems:
    """The alarm on healthy hosts sums both target groups, for they alternate."""
    found = [a for a in alarms_on(plan, "HealthyHostCount") if a.text.count("HealthyHostCount") >= 2]
    return at_least(1, found, "alarm on the healthy hosts of both groups")
