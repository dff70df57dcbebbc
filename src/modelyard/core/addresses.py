"""Addresses in settings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def _checked(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"https?://[^/?#@]+/?", value):
        raise ValueError("an address as https://s3.example.com, without a path, a user or a password")
    return value


Address = Annotated[str | None, AfterValidator(_checked)]
"""Of a service that is not AWS's own; None for AWS's."""
