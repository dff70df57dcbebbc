"""The jail: every protection, tried as at the start of a jailed model."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.cli.doctor.findings import Finding, State, found
from modelyard.cli.doctor.machine import AREA
from modelyard.core.settings import Settings
from modelyard.models.report import jail_bounds
from modelyard.runtimes.jail.probe import probe

REMEDY = "Linux 5.13 or newer with Landlock on x86-64 or arm64; or take the format out of models.unsafe_formats."


def jail(settings: Settings) -> Iterator[Finding]:
    """One line for each protection. One that is missing is a problem where models.unsafe_formats allows a format."""
    allowed = settings.models.unsafe_formats
    said = f"allowed: {', '.join(allowed)}" if allowed else "none allowed (models.unsafe_formats)"
    yield found(AREA, "unsafe formats", said)
    for name, why in probe(jail_bounds(settings.models)).items():
        if not why:
            yield found(AREA, f"jail: {name}", "holds")
        elif allowed:
            yield Finding(AREA, f"jail: {name}", State.PROBLEM, f"does not hold: {why}", REMEDY)
        else:
            yield found(AREA, f"jail: {name}", f"would not hold: {why}")
