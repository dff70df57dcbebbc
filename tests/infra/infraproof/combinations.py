"""The stacks that are proven: compute x database, without and with an image, and the three presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

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

    def arguments(self) -> tuple[str, ...]:
        """The variable file arguments beside the generated one."""
        return () if self.preset is None else (f"-var-file=presets/{self.preset}.tfvars",)

    def but(self, label: str, **variables: Any) -> Stack:
        """The same stack with some variables changed."""
        return Stack(f"{self.name}+{label}", {**self.variables, **variables}, self.preset)


def combination(compute: str, database: str, image: str | None = IMAGE) -> Stack:
    """One of the nine combinations; `image=None` is the first apply from an empty account."""
    name = f"{compute}/{database}/{'image' if image else 'no-image'}"
    return Stack(name, {**BASE, "compute": compute, "database": database, "image": image})


def preset(name: str, image: str | None = IMAGE) -> Stack:
    """One of the sizes in infra/presets."""
    return Stack(f"preset-{name}/{'image' if image else 'no-image'}", {**BASE, "image": image}, name)


NINE = tuple(product(COMPUTES, DATABASES))
WITH_IMAGE = tuple(combination(*pair) for pair in NINE)
WITHOUT_IMAGE = tuple(combination(*pair, image=None) for pair in NINE)
PRESET_STACKS = tuple(preset(name) for name in PRESETS)
#: With a public name: certificate and TLS on every listener, which production demands.
DOMAIN = {"name": "api.example.com", "zone_id": "Z0123456789ABCDEFGHIJ"}
PRODUCTION = combination("ecs-fargate", "postgres").but("production", environment="production", domain=DOMAIN)
EVERY_STACK = (*WITH_IMAGE, *WITHOUT_IMAGE, *PRESET_STACKS, PRODUCTION)
