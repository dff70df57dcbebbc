"""A parsed plan: resources with planned values, what is unknown until apply, and what the configuration sets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from infraproof.sources import Block

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """One managed resource instance of a plan (or of a state, where nothing is unknown)."""

    address: str
    type: str
    name: str
    module: str
    values: Values
    unknown: Values = field(default_factory=dict)
    expressions: Values = field(default_factory=dict)

    def get(self, path: str, default: Any = None) -> Any:
        """A planned value by dotted path through the first element of nested blocks."""
        return dig(self.values, path, default)

    def is_set(self, path: str) -> bool:
        """True when the value is known and not empty, or when the configuration sets it from something unknown."""
        value = self.get(path)
        if value not in (None, "", [], {}):
            return True
        if not dig(self.unknown, path, False):
            return False
        expression = dig(self.expressions, path, None)
        return isinstance(expression, Mapping) and bool(
            expression.get("references") or expression.get("constant_value")
        )

    def blocks(self, name: str) -> list[Values]:
        """The nested blocks of this name (an empty list when there are none)."""
        found = self.values.get(name) or []
        return [found] if isinstance(found, Mapping) else list(found)


def dig(values: Any, path: str, default: Any = None) -> Any:
    """Follow a dotted path; a list on the way means its first element."""
    for part in path.split("."):
        if isinstance(values, list):
            values = values[0] if values else None
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return default if values is None else values


@dataclass(frozen=True)
class Plan:
    """What one set of variables plans from an empty state; `blocks` are the source blocks it was planned from."""

    resources: tuple[Resource, ...]
    variables: Values
    outputs: Values
    raw: Values
    blocks: tuple[Block, ...]

    def of(self, *types: str) -> list[Resource]:
        """Every resource of these types."""
        return [resource for resource in self.resources if resource.type in types]

    def in_module(self, module: str) -> list[Resource]:
        """Every resource below modules/<module>."""
        return [resource for resource in self.resources if resource.module == module]

    def variable(self, name: str) -> Any:
        """The value of a root variable in this plan (its default when it wasn't given)."""
        return self.variables.get(name)

    @property
    def compute(self) -> str:
        """`ecs-fargate`, `ecs-ec2` or `lambda`."""
        return str(self.variable("compute"))

    @property
    def database(self) -> str:
        """`postgres`, `mysql` or `dynamodb`."""
        return str(self.variable("database"))

    @property
    def has_image(self) -> bool:
        """False for the first apply, which leaves the compute modules out."""
        return bool(self.variable("image"))

    @property
    def on_ecs(self) -> bool:
        """True for both ECS branches."""
        return self.compute.startswith("ecs")

    def source_of(self, kind: str, type_: str, module: str) -> list[Block]:
        """The source blocks of one resource type in one module: for lifecycle rules, which no plan shows."""
        return [
            block
            for block in self.blocks
            if block.kind == kind and block.labels[:1] == (type_,) and block.file.parent.name == module
        ]

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy document of the plan whose text is known."""
        return tuple(policies_of(self.resources))


@dataclass(frozen=True)
class Policy:
    """A parsed policy document: the resource and attribute that hold it and its statements."""

    resource: Resource
    attribute: str
    statements: tuple[Values, ...]


POLICY_ATTRIBUTES = ("policy", "assume_role_policy", "access_policy", "inline_policy.policy")


def policies_of(resources: tuple[Resource, ...]) -> Iterator[Policy]:
    """Parse the policy documents that the resources hold as JSON text."""
    for resource in resources:
        for attribute in POLICY_ATTRIBUTES:
            text = resource.get(attribute)
            if isinstance(text, str) and '"Statement"' in text:
                statements = json.loads(text)["Statement"]
                yield Policy(resource, attribute, tuple(listed(statements)))


def listed(value: Any) -> list[Any]:
    """A list of one, for the many places where AWS takes either a value or a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def parse(raw: Values, blocks: tuple[Block, ...]) -> Plan:
    """Build a Plan from `terraform show -json` of a plan file."""
    changes = {change["address"]: change["change"] for change in raw.get("resource_changes", [])}
    expressions = configured(raw.get("configuration", {}).get("root_module", {}))
    resources = []
    for item in walk(raw.get("planned_values", {}).get("root_module", {})):
        if item["mode"] != "managed":
            continue
        change = changes.get(item["address"], {})
        resources.append(
            Resource(
                item["address"],
                item["type"],
                item["name"],
                module_of(item["address"]),
                item.get("values", {}),
                change.get("after_unknown") or {},
                expressions.get(without_keys(item["address"]), {}),
            )
        )
    outputs = raw.get("planned_values", {}).get("outputs", {})
    return Plan(tuple(resources), variables_of(raw), outputs, raw, blocks)


def variables_of(raw: Values) -> dict[str, Any]:
    """The root variables of the plan, with defaults from the configuration where none was given."""
    declared = raw.get("configuration", {}).get("root_module", {}).get("variables", {})
    found = {name: body.get("default") for name, body in declared.items()}
    found.update({name: body.get("value") for name, body in raw.get("variables", {}).items()})
    return found


def walk(module: Values) -> Iterator[Values]:
    """Every resource of a module and of its children."""
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from walk(child)


def configured(module: Values, prefix: str = "") -> dict[str, Values]:
    """Address without keys -> the expressions the configuration writes for it."""
    found = {prefix + item["address"]: item.get("expressions", {}) for item in module.get("resources", [])}
    for name, call in module.get("module_calls", {}).items():
        found.update(configured(call.get("module", {}), f"{prefix}module.{name}."))
    return found


def without_keys(address: str) -> str:
    """`module.a["x"].t.n[0]` -> `module.a.t.n`."""
    return re.sub(r"\[(?:\"[^\"]*\"|\d+)\]", "", address)


def module_of(address: str) -> str:
    """The name of the outermost module of an address, empty for the root."""
    match = re.match(r"module\.(\w+)", address)
    return match.group(1) if match else ""
