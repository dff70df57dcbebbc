"""References to secrets: what stands in a setting instead of the secret itself."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from modelyard.core.errors import SettingsError

_FORM = re.compile(r"(aws-sm|aws-ssm)://([A-Za-z0-9/_+=.@:-]{1,2048})(?:#([A-Za-z0-9_.-]{1,128}))?")
EXAMPLE = "aws-sm://arn:aws:secretsmanager:eu-central-1:123456789012:secret:modelyard-x#password"


class Reference(msgspec.Struct, frozen=True):
    """A secret of AWS Secrets Manager (`aws-sm`, by ARN or name) or a parameter of Systems Manager (`aws-ssm`, by
    name or ARN); with `key`, one text of the JSON object that it holds."""

    service: Literal["aws-sm", "aws-ssm"]
    name: str
    key: str | None = None

    @property
    def region(self) -> str | None:
        """Where it lies, as its ARN says; None for a name."""
        parts = self.name.split(":")
        return parts[3] or None if parts[0] == "arn" and len(parts) > 5 else None


def reference_of(text: str, field: str) -> Reference | None:
    """The reference that a setting is, None if it is none; SettingsError("setting_invalid") if it is a broken one."""
    if not text.startswith(("aws-sm://", "aws-ssm://")):
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        raise SettingsError(
            "setting_invalid",
            f"The setting `{field}` refers to a secret, but not in the form of a reference.",
            field=field,
            expected="aws-sm://ARN, aws-sm://ARN#key or aws-ssm://NAME",
            example=EXAMPLE,
        )
    service: Literal["aws-sm", "aws-ssm"] = "aws-sm" if found[1] == "aws-sm" else "aws-ssm"
    return Reference(service, found[2], found[3])
