"""What a second plan would change, and which of that is only the emulator forgetting what it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Type and argument that the emulator takes and doesn't give back when asked -> the parameter of the call. It counts as
#: forgotten only where the request log shows a call that the emulator accepted with this parameter in it.
FORGOTTEN = {
    ("aws_api_gateway_rest_api", "binary_media_types"): "binaryMediaTypes",
    ("aws_autoscaling_group", "default_instance_warmup"): "DefaultInstanceWarmup",
    ("aws_autoscaling_group", "max_instance_lifetime"): "MaxInstanceLifetime",
    ("aws_db_instance", "database_insights_mode"): "DatabaseInsightsMode",
    ("aws_ecs_service", "capacity_provider_strategy"): "capacityProviderStrategy",
    ("aws_flow_log", "destination_options"): "DestinationOptions",
    ("aws_kms_key", "rotation_period_in_days"): "RotationPeriodInDays",
    ("aws_lambda_function", "logging_config"): "LoggingConfig",
    ("aws_vpc_security_group_egress_rule", "description"): "Description",
    ("aws_vpc_security_group_ingress_rule", "description"): "Description",
}
#: Type, argument and part that only provider 6 has -> why a second plan would change it. The emulating provider, whose
#: older schema lacks the part, makes a value up and then plans to take it away; only exactly that is let pass.
INVENTED = {
    ("aws_acm_certificate", "options", "export"): "an argument of provider 6 that the emulating provider makes up a "
    "value for (`export-…`) and then plans to remove; the sources leave it out",
}
Requests = Sequence[Mapping[str, Any]]


def changes(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(address, type, argument) for everything the plan would change; a replacement names what forces it."""
    for item in plan.get("resource_changes", []):
        change = item["change"]
        if item.get("mode") == "data" or change["actions"] in (["no-op"], ["read"]):
            continue
        forced = {path[0] for path in change.get("replace_paths") or [] if path}
        for argument in forced or differing(change) - invented(item["type"], change):
            yield item["address"], item["type"], str(argument)
    for name, change in plan.get("output_changes", {}).items():
        if change["actions"] != ["no-op"] and not change.get("after_unknown"):
            yield name, "output", "value"


def differing(change: Mapping[str, Any]) -> set[str]:
    """The arguments whose values differ; `*` for a resource that appears or goes."""
    before, after = change.get("before"), change.get("after")
    if before is None or after is None:
        return {"*"}
    return {name for name in after if filled(before.get(name)) != filled(after[name])}


def invented(kind: str, change: Mapping[str, Any]) -> set[str]:
    """The arguments that differ only by a value which the emulating provider made up."""
    before, after = change.get("before") or {}, change.get("after") or {}
    mine = [(argument, part) for of, argument, part in INVENTED if of == kind]
    return {argument for argument, part in mine if made_up(before.get(argument), after.get(argument), part)}


def made_up(before: Any, after: Any, part: str) -> bool:
    """True when the second block is the first without one part, and that part's value is one that was made up."""
    if not (isinstance(before, list) and isinstance(after, list) and len(before) == len(after) == 1):
        return False
    rest = {name: value for name, value in before[0].items() if name != part}
    return str(before[0].get(part)).startswith(f"{part}-") and filled(after[0]) == filled(rest)


def filled(value: Any) -> Any:
    """A value without its empty parts: nothing, an empty text and an empty list are one to AWS."""
    if isinstance(value, Mapping):
        parts = {key: filled(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part is not None} or None
    if isinstance(value, list):
        return [filled(part) for part in value] or None
    return None if value == "" else value


def sent(kind: str, argument: str, requests: Requests) -> bool:
    """True when the emulator accepted a call that held the argument."""
    parameter = FORGOTTEN.get((kind, argument))
    if parameter is None:
        return False
    return any(parameter in str(entry.get("body", "")) and int(entry["status"]) < 300 for entry in requests)


def drift(plan: Mapping[str, Any], requests: Requests) -> list[str]:
    """`address argument` for every change that the emulator's forgetting doesn't explain."""
    return [f"{address} {argument}" for address, kind, argument in changes(plan) if not sent(kind, argument, requests)]


def forgotten(plan: Mapping[str, Any], requests: Requests) -> list[str]:
    """`type.argument` for every change that is only the emulator forgetting."""
    return sorted({f"{kind}.{argument}" for _, kind, argument in changes(plan) if sent(kind, argument, requests)})
