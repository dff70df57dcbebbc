"""The stacks that are proven: compute x database, without and with an image, and the three presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest

COMPUTES = ("ecs-fargate", "ecs-ec2", "lambda")
DATABASES = ("postgres", "mysql", "dynamodb")
PRESETS = ("small", "expected", "lambda")
ACCOUNT = "123456789012"
REGION = "eu-central-1"
#: The emulator pulls no image, so any digest will do; the form is what is proven.
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/modelyard@sha256:" + "0123456789abcdef" * 4
BASE: dict[str, Any] = {"alert_emails": ["operations@example.com"]}


@dataclass(frozen=True)
class Stack:
    """One set of root variables with a name that reports and caches use."""

    name: str
    variables: dict[str, Any] = field(hash=False)
    preset: str | None = None
    #: Planned from the provider's schema alone: an argument in it is only known since provider 6.
    schema_only: bool = False

    def arguments(self) -> tuple[str, ...]:
        """The variable file arguments beside the generated one."""
        return () if self.preset is None else (f"-var-file=presets/{self.preset}.tfvars",)

    def but(self, label: str, **variables: Any) -> Stack:
        """The same stack with some variables changed."""
        return replace(self, name=f"{self.name}+{label}", variables={**self.variables, **variables})


#: Two forms that provider 6 knows and an older argument check refuses: a proxy that signs in by token, the default of
#: lambda.proxy_login, and the default of domain.tls_policy. The nine stacks and production take the other value, so
#: that they can be applied too; the defaults are planned from the schema (PROVIDER_SIX) and broken by mutations.
PROXIED = (("lambda", "postgres"), ("lambda", "mysql"))


def combination(compute: str, database: str, image: str | None = IMAGE) -> Stack:
    """One of the nine combinations; `image=None` is the first apply from an empty account."""
    name = f"{compute}/{database}/{'image' if image else 'no-image'}"
    login = {"lambda": {"proxy_login": "secret"}} if (compute, database) in PROXIED else {}
    return Stack(name, {**BASE, **login, "compute": compute, "database": database, "image": image})


def preset(name: str, image: str | None = IMAGE) -> Stack:
    """One of the sizes in infra/presets."""
    return Stack(f"preset-{name}/{'image' if image else 'no-image'}", {**BASE, "image": image}, name)


NINE = tuple(product(COMPUTES, DATABASES))
#: Applied, read back over the AWS API and destroyed: the first in the long form, the second (it waits less) in short.
READ_BACK, READ_BACK_SHORT = combination("ecs-fargate", "postgres"), combination("lambda", "dynamodb")
WITH_IMAGE = tuple(combination(*pair) for pair in NINE)
WITHOUT_IMAGE = tuple(combination(*pair, image=None) for pair in NINE)
PRESET_STACKS = tuple(preset(name) for name in PRESETS)
#: With a public name: certificate and TLS on every listener, which production demands.
NAME = {"name": "api.example.com", "zone_id": "Z0123456789ABCDEFGHIJ"}
DOMAIN = {**NAME, "tls_policy": "TLS_1_2"}
PRODUCTION = combination("ecs-fargate", "postgres").but("production", environment="production", domain=DOMAIN)
PROVIDER_SIX = tuple(
    replace(combination("lambda", database).but("provider-6", domain=NAME, **{"lambda": {}}), schema_only=True)
    for database in ("postgres", "mysql")
)
EVERY_STACK = (*WITH_IMAGE, *WITHOUT_IMAGE, *PRESET_STACKS, PRODUCTION, *PROVIDER_SIX)


def in_the_long_form(*stacks: Stack) -> list[Any]:
    """The stacks as parameters that only the long form takes."""
    return [pytest.param(stack, marks=pytest.mark.infra_long) for stack in stacks]
