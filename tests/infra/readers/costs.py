"""A coarse monthly cost of a plan at list prices (US East, USD, 2026): enough to tell 500 from 5,000."""

from __future__ import annotations

from infraproof.plan import Plan

HOURS = 730
AVERAGE_SHARE_OF_PEAK = 0.2
RECORD_KB = 2.0
REST_API_MILLION = 3.5
WAF_MILLION, WAF_ACL, WAF_RULE = 0.6, 5.0, 1.0
FARGATE_ARM_VCPU_H, FARGATE_ARM_GB_H = 0.03238, 0.00356
LAMBDA_ARM_GB_S, LAMBDA_MILLION, PROVISIONED_GB_S = 0.0000133334, 0.2, 0.0000033334
BALANCER_H, ENDPOINT_H, NAT_H = 0.0225 + 0.008, 0.01, 0.045
INSTANCE_H = {"m7g.large": 0.0816, "m7g.xlarge": 0.1632, "c7g.large": 0.0725, "c7g.xlarge": 0.145, "t4g.large": 0.0672}
DATABASE_H = {"db.t4g.small": 0.032, "db.t4g.medium": 0.065, "db.t4g.large": 0.129, "db.m7g.large": 0.168}
UNKNOWN_INSTANCE_H, UNKNOWN_DATABASE_H = 0.35, 0.7
RDS_GB, DYNAMO_WRITE_MILLION, DYNAMO_GB = 0.115, 0.625, 0.45
CACHE_NODE_H, KEY, SECRET, ALARM, LOG_GB, LOG_KB = 0.016, 1.0, 0.4, 0.1, 0.5, 0.3
KB_PER_GB = 1024 * 1024


def requests_per_month(plan: Plan) -> float:
    """Requests of a month at the declared load."""
    peak = (plan.variable("load") or {}).get("peak_requests_per_minute") or 10_000
    return float(peak) * AVERAGE_SHARE_OF_PEAK * HOURS * 60


def monthly_usd(plan: Plan) -> dict[str, float]:
    """Cost a month by part, for what the plan makes and the load it declares."""
    millions = requests_per_month(plan) / 1e6
    rules = sum(len(acl.blocks("rule")) for acl in plan.of("aws_wafv2_web_acl"))
    parts = {
        "gateway": millions * REST_API_MILLION * len(plan.of("aws_api_gateway_rest_api")),
        "firewall": (WAF_ACL + rules * WAF_RULE + millions * WAF_MILLION) * bool(plan.of("aws_wafv2_web_acl")),
        "compute": compute_usd(plan, millions),
        "balancer": HOURS * BALANCER_H * len(plan.of("aws_lb")),
        "database": database_usd(plan, millions),
        "counter": HOURS
        * CACHE_NODE_H
        * sum(g.get("num_cache_clusters") or 1 for g in plan.of("aws_elasticache_replication_group")),
        "network": network_usd(plan),
        "logs": millions * 1e6 * LOG_KB / KB_PER_GB * LOG_GB,
        "keys and alarms": KEY * len(plan.of("aws_kms_key"))
        + SECRET * len(plan.of("aws_secretsmanager_secret"))
        + ALARM * len(plan.of("aws_cloudwatch_metric_alarm")),
    }
    return {name: round(value, 1) for name, value in parts.items()}


def compute_usd(plan: Plan, millions: float) -> float:
    """Tasks at their floor, instances at theirs, or the function's seconds and its warm environments."""
    sizing, load = plan.variable("sizing") or {}, plan.variable("load") or {}
    floor, gigabytes = sizing.get("min_tasks") or 2, (sizing.get("memory_mb") or 4096) / 1024
    if plan.compute == "ecs-fargate":
        vcpu = (sizing.get("cpu") or 2048) / 1024
        return (
            HOURS
            * floor
            * (vcpu * FARGATE_ARM_VCPU_H + gigabytes * FARGATE_ARM_GB_H)
            * bool(plan.of("aws_ecs_service"))
        )
    if plan.compute == "ecs-ec2":
        groups = plan.of("aws_autoscaling_group")
        kind = str((plan.variable("ec2") or {}).get("instance_type") or "m7g.xlarge")
        return HOURS * sum(g.get("min_size") or 1 for g in groups) * INSTANCE_H.get(kind, UNKNOWN_INSTANCE_H)
    seconds = millions * 1e6 * max(1.0, float(load.get("cpu_ms_per_request") or 10)) / 1000
    warm = (
        HOURS * 3600 * floor * gigabytes * PROVISIONED_GB_S * bool(plan.of("aws_lambda_provisioned_concurrency_config"))
    )
    return seconds * gigabytes * LAMBDA_ARM_GB_S + millions * LAMBDA_MILLION + warm


def database_usd(plan: Plan, millions: float) -> float:
    """Instance hours (twice with a standby) and storage of the retention; or writes and storage of the tables."""
    days = float(plan.variable("retention_days") or 90)
    gigabytes = millions * 1e6 * RECORD_KB / KB_PER_GB * days / 30
    if plan.database == "dynamodb":
        return 2 * millions * DYNAMO_WRITE_MILLION * max(1.0, RECORD_KB) + gigabytes * DYNAMO_GB
    total = 0.0
    for instance in plan.of("aws_db_instance"):
        copies = 2 if instance.get("multi_az") else 1
        hourly = DATABASE_H.get(str(instance.get("instance_class")), UNKNOWN_DATABASE_H)
        total += copies * (HOURS * hourly + max(gigabytes, instance.get("allocated_storage") or 0) * RDS_GB)
    return total


def network_usd(plan: Plan) -> float:
    """Interface endpoints by zone, and NAT gateways."""
    interfaces = [e for e in plan.of("aws_vpc_endpoint") if e.get("vpc_endpoint_type") == "Interface"]
    zones = len([s for s in plan.of("aws_subnet") if "private" in s.address])
    return HOURS * (len(interfaces) * zones * ENDPOINT_H + len(plan.of("aws_nat_gateway")) * NAT_H)
