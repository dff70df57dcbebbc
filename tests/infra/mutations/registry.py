"""What a mutation is: one property broken in the sources, and the check that must notice."""

from __future__ import annotations

from dataclasses import dataclass

from infraproof import combinations as stacks
from infraproof.combinations import Stack, combination
from infraproof.planner import Edit

BARE = combination("ecs-fargate", "postgres", image=None)
BARE_MYSQL = combination("ecs-fargate", "mysql", image=None)
BARE_DYNAMODB = combination("ecs-fargate", "dynamodb", image=None)
FARGATE = combination("ecs-fargate", "postgres")
INSTANCES = combination("ecs-ec2", "mysql")
FUNCTION = combination("lambda", "dynamodb")
FUNCTION_RDS = combination("lambda", "postgres")
PROVIDER_SIX = stacks.PROVIDER_SIX[0]
SERVERLESS = BARE.but("serverless", valkey="serverless")


@dataclass(frozen=True)
class Mutation:
    """One broken property; `check` is the identifier of the check that must fail."""

    name: str
    check: str
    stack: Stack
    edits: tuple[Edit, ...]

    @property
    def module(self) -> str:
        """The module that is broken, or the file where it is a root file."""
        parts = self.edits[0].file.split("/")
        return parts[1] if parts[0] == "modules" else parts[0]

    @property
    def requirement(self) -> str:
        """The row of the catalogue that the check answers."""
        return self.check.partition(".")[0]


def broken(name: str, check: str, stack: Stack, place: str, old: str, new: str) -> Mutation:
    """A mutation of one place; `place` is `module/file` below modules, or a root file."""
    file = f"modules/{place}" if "/" in place else place
    file += "" if "." in file else ".tf"
    return Mutation(name, check, stack, (Edit(file, old, new),))
