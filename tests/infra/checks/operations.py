"""OPS-1, OPS-2, OPS-3 and OPS-6: one apply, releases without a gap, and somebody who hears of trouble."""

from __future__ import annotations

import json
import re

from infraproof.plan import Plan, Resource
from readers.alarms import alarms, alarms_on
from readers.service import container, functions

from checks.registry import Problems, at_least, check, each, exactly, on_ecs, on_lambda, with_image

#: What an empty account can answer; anything else would have to exist before the first apply.
ALLOWED_DATA = {
    "aws_caller_identity",
    "aws_partition",
    "aws_region",
    "aws_availability_zones",
    "aws_prefix_list",
    "aws_ec2_managed_prefix_list",
    "aws_ssm_parameter",
    "aws_iam_policy_document",
}
STRATEGIES = {"BLUE_GREEN", "LINEAR", "CANARY"}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


@check("OPS-1")
def an_empty_account_is_enough(plan: Plan) -> Problems:
    """The plan reads nothing that somebody would have to make by hand first."""
    found = {b.labels[0] for b in plan.blocks if b.kind == "data" and "bootstrap" not in b.file.parts}
    return [f"data source {kind} needs something that exists" for kind in sorted(found - ALLOWED_DATA)]


@check("OPS-1")
def nothing_is_done_behind_terraform(plan: Plan) -> Problems:
    """No null_resource and no provisioner: what Terraform does is in the plan and in the state."""
    behind = [b for b in plan.blocks if b.kind == "resource" and b.labels[0] in ("null_resource", "local_file")]
    scripted = [b for b in plan.blocks if re.search(r"^\s*provisioner\s", b.text, re.MULTILINE)]
    return [f"{b.file.name}:{b.line}: runs something behind Terraform" for b in behind + scripted]


@check("OPS-1")
def first_apply_makes_no_service(plan: Plan) -> Problems:
    """Without an image all but the service, its gateway and its scaling is made; with one, exactly one service."""
    services = plan.of("aws_ecs_service") + functions(plan)
    return exactly(1 if plan.has_image else 0, services, "service")


@check("OPS-1", with_image)
def image_is_named_by_digest(plan: Plan) -> Problems:
    """The service runs an image by digest: what was tested is what runs."""
    images = [str(f.get("image_uri")) for f in functions(plan)]
    if plan.on_ecs:
        images += [str(container(plan).get("image"))]
    return at_least(1, images, "image") + [f"{image}: not a digest" for image in images if not DIGEST.search(image)]


@check("OPS-2", on_ecs)
def release_is_blue_green(plan: Plan) -> Problems:
    """ECS releases by the strategy asked for, with a bake time, and never by replacing tasks in place."""
    services = plan.of("aws_ecs_service")
    wanted = (plan.variable("release") or {}).get("strategy") or "BLUE_GREEN"
    return [
        *exactly(1, services, "service"),
        *each(
            services, lambda item: item.get("deployment_configuration.strategy") == wanted, f"strategy must be {wanted}"
        ),
        *each(services, bakes, "needs a bake time"),
        *([] if wanted in STRATEGIES else [f"{wanted} is no blue-green strategy"]),
    ]


def bakes(service: Resource) -> bool:
    """True when both colours stay up for a while."""
    return int(service.get("deployment_configuration.bake_time_in_minutes") or 0) >= 1


@check("OPS-2", on_ecs)
def both_colours_have_a_group(plan: Plan) -> Problems:
    """Two target groups, production and test rules, all named to ECS so that it can shift the traffic."""
    services, path = plan.of("aws_ecs_service"), "load_balancer.advanced_configuration"
    parts = ("alternate_target_group_arn", "production_listener_rule", "test_listener_rule", "role_arn")
    return [
        *exactly(2, plan.of("aws_lb_target_group"), "target groups, blue and green"),
        *at_least(2, plan.of("aws_lb_listener_rule"), "listener rules, production and test"),
        *[
            f"{s.address}: {path}.{part} isn't set"
            for s in services
            for part in parts
            if not s.is_set(f"{path}.{part}")
        ],
    ]


@check("OPS-2", on_ecs)
def green_is_tested_before_it_serves(plan: Plan) -> Problems:
    """A hook tests green through the test rule before production traffic moves."""
    path = "deployment_configuration.lifecycle_hook"
    services = plan.of("aws_ecs_service")
    return each(
        services,
        lambda item: (item.get(f"{path}.lifecycle_stages") or []) == ["POST_TEST_TRAFFIC_SHIFT"],
        "needs a hook at POST_TEST_TRAFFIC_SHIFT",
    ) + each(services, lambda item: item.is_set(f"{path}.hook_target_arn"), "the hook needs its function")


@check("OPS-2", on_ecs)
def bad_release_rolls_back(plan: Plan) -> Problems:
    """Alarms during the bake and a circuit breaker before it roll a release back by themselves."""
    services = plan.of("aws_ecs_service")
    return [
        *each(services, lambda item: item.get("alarms.enable") is True, "needs alarms"),
        *each(services, lambda item: item.get("alarms.rollback") is True, "alarms must roll back"),
        *each(services, lambda item: item.is_set("alarms.alarm_names"), "names no alarm"),
        *each(services, lambda item: item.get("deployment_circuit_breaker.enable") is True, "needs a circuit breaker"),
        *each(services, lambda item: item.get("deployment_circuit_breaker.rollback") is True, "it must roll back"),
    ]


def ignored(plan: Plan, kind: str, module: str) -> list[set[str]]:
    """The attributes that each resource of a type leaves to others (`ignore_changes` isn't in the plan)."""
    found = []
    for block in plan.source_of("resource", kind, module):
        match = re.search(r"ignore_changes\s*=\s*\[([^\]]*)\]", block.text)
        found.append(set(re.findall(r"[a-z_]+", re.sub(r"#.*", "", match.group(1)))) if match else set())
    return found


@check("OPS-2", on_ecs)
def releases_own_the_image(plan: Plan) -> Problems:
    """Terraform leaves image, weights and task count to releases and scaling, or it would undo them."""
    wanted, problems = {"task_definition", "load_balancer", "desired_count"}, []
    for names in ignored(plan, "aws_ecs_service", "ecs"):
        problems += [f"aws_ecs_service must ignore {name}" for name in sorted(wanted - names)]
    for names in ignored(plan, "aws_lb_listener_rule", "ecs"):
        problems += [] if "action" in names else ["aws_lb_listener_rule must ignore action"]
    return problems + ([] if "release_required" in plan.outputs else ["no output release_required"])


@check("OPS-2", on_lambda)
def alias_is_moved_by_releases(plan: Plan) -> Problems:
    """The function publishes versions; CodeDeploy moves the alias that serves, and Terraform ignores where it is."""
    aliases = plan.of("aws_lambda_alias")
    lists = ignored(plan, "aws_lambda_alias", "lambda")
    missing = [{"function_version", "routing_config"} - names for names in lists]
    return [
        *at_least(1, aliases, "alias"),
        *each(functions(plan), lambda item: item.get("publish") is True, "must publish versions"),
        *[f"aws_lambda_alias must ignore {sorted(names)}" for names in missing if names],
    ]


@check("OPS-2", on_lambda)
def function_release_rolls_back(plan: Plan) -> Problems:
    """CodeDeploy shifts traffic blue-green and rolls back on a failure and on an alarm."""
    groups = plan.of("aws_codedeploy_deployment_group")
    events = {"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"}
    return [
        *exactly(1, groups, "deployment group"),
        *each(groups, lambda item: item.get("deployment_style.deployment_type") == "BLUE_GREEN", "must be BLUE_GREEN"),
        *each(
            groups, lambda item: events <= set(item.get("auto_rollback_configuration.events") or []), "must roll back"
        ),
        *each(groups, lambda item: item.get("auto_rollback_configuration.enabled") is True, "rollback must be on"),
        *each(groups, lambda item: item.is_set("alarm_configuration.alarms"), "needs alarms"),
        *each(groups, lambda item: item.get("alarm_configuration.enabled") is True, "alarms must be on"),
    ]


@check("OPS-2", on_ecs)
def stop_drains_first(plan: Plan) -> Problems:
    """Targets leave the balancer well before the container's two minutes to drain its spool are over."""
    groups = plan.of("aws_lb_target_group")
    return exactly(2, groups, "target groups") + each(
        groups, lambda item: int(item.get("deregistration_delay") or 300) <= 60, "must let go within 60 s"
    )


@check("OPS-3")
def alarms_reach_somebody(plan: Plan) -> Problems:
    """Every alarm tells somebody or feeds a composite alarm or a release; the topic has subscribers."""
    composite = " ".join(str(c.get("alarm_rule")) for c in plan.of("aws_cloudwatch_composite_alarm"))
    guards = " ".join(release_guards(plan))
    silent = [
        a.resource for a in alarms(plan) if not a.pages and a.resource.get("alarm_name", "?") not in composite + guards
    ]
    emails = plan.variable("alert_emails") or []
    return [
        *each(silent, lambda _: False, "tells nobody"),
        *at_least(len(emails), plan.of("aws_sns_topic_subscription"), "subscriptions"),
        *each(plan.of("aws_cloudwatch_composite_alarm"), lambda item: item.is_set("alarm_actions"), "tells nobody"),
    ]


def release_guards(plan: Plan) -> list[str]:
    """The alarm names that roll back releases."""
    names = [str(name) for s in plan.of("aws_ecs_service") for name in s.get("alarms.alarm_names") or []]
    groups = plan.of("aws_codedeploy_deployment_group")
    return names + [str(name) for g in groups for name in g.get("alarm_configuration.alarms") or []]


@check("OPS-3")
def missing_data_is_decided(plan: Plan) -> Problems:
    """Every alarm says what missing data means."""
    return each(
        plan.of("aws_cloudwatch_metric_alarm"),
        lambda item: item.get("treat_missing_data") in ("breaching", "notBreaching", "ignore"),
        "must say what missing data means",
    )


@check("OPS-3", with_image)
def service_is_watched(plan: Plan) -> Problems:
    """Errors, saturation and latency of the service raise alarms."""
    problems = []
    for metric in ("5XXError", "Saturation", "Latency"):
        problems += at_least(1, alarms_on(plan, metric), f"alarm on {metric}")
    return problems


@check("OPS-3")
def database_is_watched(plan: Plan) -> Problems:
    """The database raises alarms: load, storage and connections on RDS, throttles on DynamoDB."""
    metrics = {"dynamodb": [("ThrottledRequests", "WriteThrottleEvents", "ReadThrottleEvents")]}.get(
        plan.database, [("CPUUtilization",), ("FreeStorageSpace",), ("DatabaseConnections",)]
    )
    return [
        f"no alarm on {' or '.join(names)}" for names in metrics if not any(alarms_on(plan, name) for name in names)
    ]


@check("OPS-3")
def dashboard_is_readable(plan: Plan) -> Problems:
    """One dashboard whose body is valid JSON with widgets."""
    boards = plan.of("aws_cloudwatch_dashboard")
    bodies = [b.get("dashboard_body") for b in boards]
    bad = [b for b in bodies if isinstance(b, str) and not json.loads(b).get("widgets")]
    return at_least(1, boards, "dashboard") + ["the dashboard has no widgets" for _ in bad]


@check("OPS-3", with_image)
def logs_are_collected(plan: Plan) -> Problems:
    """The service logs to a group of ours; the stage writes an access log, without keys."""
    ours = [g for g in plan.of("aws_cloudwatch_log_group") if str(g.get("name")).endswith("/service")]
    problems = at_least(1, ours, "log group of the service")
    stages = plan.of("aws_api_gateway_stage")
    formats = [str(stage.get("access_log_settings.format")) for stage in stages]
    problems += [
        "the access log holds API keys" for text in formats if "identity.apiKey" in text.replace("apiKeyId", "")
    ]
    return problems + each(
        stages, lambda item: item.is_set("access_log_settings.destination_arn"), "needs an access log"
    )


@check("OPS-3", with_image)
def payloads_stay_out_of_gateway_logs(plan: Plan) -> Problems:
    """The gateway reports metrics, and never writes requests and answers to its execution log."""
    settings = plan.of("aws_api_gateway_method_settings")
    return each(settings, lambda item: not item.get("settings.data_trace_enabled"), "data trace must be off") + each(
        settings, lambda item: item.get("settings.metrics_enabled") is True, "metrics must be on"
    )


@check("OPS-6", on_ecs)
def rules_carry_both_weights(plan: Plan) -> Problems:
    """Every listener rule forwards to both colours by weight, which is how traffic between images is split."""
    rules = plan.of("aws_lb_listener_rule")
    return at_least(2, rules, "listener rules") + each(rules, weighs_two, "must weigh both colours")


def weighs_two(rule: Resource) -> bool:
    """True when a rule forwards to two weighted groups and does nothing else."""
    actions = rule.blocks("action")
    groups = [
        group for action in actions for forward in action.get("forward") or [] for group in forward["target_group"]
    ]
    return len(actions) == 1 and len(groups) == 2


@check("OPS-6", on_lambda)
def alias_may_be_weighed(plan: Plan) -> Problems:
    """The alias's weights belong to releases: Terraform leaves them alone, so that two versions can serve at once."""
    lists = ignored(plan, "aws_lambda_alias", "lambda")
    return at_least(1, lists, "alias") + [
        "Terraform would reset the weights" for names in lists if "routing_config" not in names
    ]


@check("OPS-6", with_image)
def versions_are_on_the_dashboard(plan: Plan) -> Problems:
    """The dashboard shows metrics by endpoint and version, which is what an A/B test compares."""
    sources = [b.text for b in plan.blocks if b.file.parent.name == "cloudwatch" and b.file.name == "dashboard.tf"]
    both = [text for text in sources if re.search(r"\{Modelyard,[^}]*Endpoint[^}]*Version", text)]
    return at_least(1, plan.of("aws_cloudwatch_dashboard"), "dashboard") + at_least(
        1, both, "widget by endpoint and version"
    )
