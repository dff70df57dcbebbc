"""Reads the service's container or function from a plan: its image and its settings."""

from __future__ import annotations

from typing import Any

from infraproof.plan import Plan, Resource, dig


def container(plan: Plan) -> dict[str, Any]:
    """The service's container, value by value; {} unless the task definition is rendered from the same expression.

    The definition itself is one text, unknown as long as one setting in it is; the stack shows its parts beside it.
    """
    shown = [item for item in plan.of("terraform_data") if item.name == "service" and item.module == "ecs"]
    sources = [dig(item.expressions, "input.references", []) for item in shown]
    tasks = plan.of("aws_ecs_task_definition")
    sent = [dig(task.expressions, "container_definitions.references", []) for task in tasks]
    if not shown or sources != sent:
        return {}
    value: dict[str, Any] = shown[0].get("input") or {}
    return value


def functions(plan: Plan) -> list[Resource]:
    """The service's function on Lambda (the image, not the hooks)."""
    return [item for item in plan.of("aws_lambda_function") if item.get("package_type") == "Image"]


def planned_environment(plan: Plan) -> dict[str, str]:
    """The service's settings as far as they are known: an address that AWS will give is missing here."""
    change = plan.raw.get("output_changes", {}).get("service_environment", {})
    found = {name: str(text) for name, text in (change.get("after") or {}).items()}
    for function in functions(plan):
        found |= function.get("environment.variables") or {}
    return found


def setting(plan: Plan, name: str) -> str:
    """One setting of the service, or an empty string while it is unknown."""
    return planned_environment(plan).get(name, "")
