"""What the doctor says: one finding each, with the remedy where something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from modelyard.core.errors import ModelyardError


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and may hurt later."""
    PROBLEM = "problem"
    """A server would not start, or would lose a promise."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `said` is what was found, `remedy` what to do ("" if nothing)."""

    area: str
    name: str
    state: State
    said: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


Check = Callable[[], Iterable[Finding]]


def found(area: str, name: str, said: str) -> Finding:
    """All is well."""
    return Finding(area, name, State.OK, said)


def judged(area: str, name: str, said: str, good: bool, remedy: str, bad: State = State.WARNING) -> Finding:
    """`bad` with the remedy unless `good`."""
    return Finding(area, name, State.OK, said) if good else Finding(area, name, bad, said, remedy)


def gather(area: str, checks: Iterable[Check]) -> list[Finding]:
    """All findings; a check that breaks is a finding itself, and stops no other."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except ModelyardError as error:
            findings.append(Finding(area, error.code, State.PROBLEM, error.message, _advice(error)))
        except Exception as error:
            said = f"This could not be looked at: {type(error).__name__}: {str(error)[:200]}"
            findings.append(Finding(area, check.__name__, State.WARNING, said, "MODELYARD_DEBUG=1 shows more."))
    return findings


def _advice(error: ModelyardError) -> str:
    expected, field = error.detail.get("expected"), error.detail.get("field")
    return f"Set {field} to {expected}." if field and expected else f"Change {field}." if field else ""
