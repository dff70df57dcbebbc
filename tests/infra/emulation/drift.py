"""What a second plan would change, and which of that is only the emulator forgetting what it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Type and argument that the emulator takes (its request log shows the call) and doesn't give back when asked.
FORGOTTEN = {
    ("aws_kms_key", "rotation_period_in_days"): "EnableKeyRotation takes the period, GetKeyRotationStatus answers 0",
    ("aws_flow_log", "destination_options"): "CreateFlowLogs takes the options, DescribeFlowLogs gives none",
    ("aws_vpc_security_group_ingress_rule", "description"): "kept only from ModifySecurityGroupRules",
    ("aws_vpc_security_group_egress_rule", "description"): "kept only from ModifySecurityGroupRules",
    ("aws_db_instance", "database_insights_mode"): "kept only from ModifyDBInstance",
}


def changes(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(address, type, argument) for everything the plan would change; a replacement names what forces it."""
    for item in plan.get("resource_changes", []):
        change = item["change"]
        if item.get("mode") == "data" or change["actions"] in (["no-op"], ["read"]):
            continue
        forced = {path[0] for path in change.get("replace_paths") or [] if path}
        for argument in forced or differing(change):
            yield item["address"], item["type"], str(argument)
    for name, change in plan.get("output_changes", {}).items():
        if change["actions"] != ["no-op"] and not change.get("after_unknown"):
            yield name, "output", "value"


def differing(change: Mapping[str, Any]) -> set[str]:
    """The arguments whose values differ; `*` for a resource that appears or goes."""
    before, after = change.get("before"), change.get("after")
    if before is None or after is None:
        return {"*"}
    return {name for name in after if before.get(name) != after[name]}


def drift(plan: Mapping[str, Any]) -> list[str]:
    """`address argument` for every change that the emulator's forgetting doesn't explain."""
    return [f"{address} {argument}" for address, kind, argument in changes(plan) if (kind, argument) not in FORGOTTEN]


def forgotten(plan: Mapping[str, Any]) -> list[str]:
    """`type.argument` for every change that is only the emulator forgetting."""
    return sorted({f"{kind}.{argument}" for _, kind, argument in changes(plan) if (kind, argument) in FORGOTTEN})
