"""The table of checks: requirement identifier and name -> function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from infraproof.plan import Plan, Resource

Problems = list[str]
Function = Callable[[Plan], Problems]


@dataclass(frozen=True)
class Check:
    """One property of a plan: the requirement it answers, its name, where it applies and the function."""

    requirement: str
    name: str
    function: Function
    applies: Callable[[Plan], bool]

    @property
    def id(self) -> str:
        """`STORE-1.buckets_encrypted`: how reports, mutations and documents call it."""
        return f"{self.requirement}.{self.name}"

    @property
    def promise(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def problems(self, plan: Plan) -> Problems:
        """What is wrong with the plan; empty where the check doesn't apply."""
        return self.function(plan) if self.applies(plan) else []


CHECKS: dict[str, Check] = {}


def always(plan: Plan) -> bool:
    """Every stack."""
    return True


def with_image(plan: Plan) -> bool:
    """Stacks in which the service itself is planned."""
    return plan.has_image


def on_ecs(plan: Plan) -> bool:
    """The service runs on ECS."""
    return plan.has_image and plan.on_ecs


def on_lambda(plan: Plan) -> bool:
    """The service runs on Lambda."""
    return plan.has_image and not plan.on_ecs


def on_ec2(plan: Plan) -> bool:
    """The service's tasks run on the account's own instances."""
    return plan.compute == "ecs-ec2"


def on_rds(plan: Plan) -> bool:
    """The database is RDS PostgreSQL or MySQL."""
    return plan.database != "dynamodb"


def on_dynamodb(plan: Plan) -> bool:
    """The database is DynamoDB."""
    return plan.database == "dynamodb"


def check(requirement: str, applies: Callable[[Plan], bool] = always) -> Callable[[Function], Function]:
    """Enter a function in the table under a requirement."""

    def enter(function: Function) -> Function:
        entry = Check(requirement, function.__name__, function, applies)
        assert entry.id not in CHECKS, f"{entry.id} is entered twice"
        CHECKS[entry.id] = entry
        return function

    return enter


def of_requirement(requirement: str) -> list[Check]:
    """Every check of one row of the catalogue."""
    return [entry for entry in CHECKS.values() if entry.requirement == requirement]


def at_least(count: int, found: Iterable[object], what: str) -> Problems:
    """A problem unless there are at least `count` of something."""
    number = len(list(found))
    return [] if number >= count else [f"{what}: {number} planned, at least {count} expected"]


def exactly(count: int, found: Iterable[object], what: str) -> Problems:
    """A problem unless there are exactly `count` of something."""
    number = len(list(found))
    return [] if number == count else [f"{what}: {number} planned, exactly {count} expected"]


def each(resources: Iterable[Resource], holds: Callable[[Resource], bool], sentence: str) -> Problems:
    """One problem for every resource for which the condition does not hold."""
    return [f"{resource.address}: {sentence}" for resource in resources if not holds(resource)]
