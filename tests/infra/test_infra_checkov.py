"""checkov finds nothing in any plan; its few exceptions are written down with reasons."""

from __future__ import annotations

import re

import pytest
from infraproof.checkov import CONFIGURATION, PROGRAM, verdict
from infraproof.combinations import PRESET_STACKS, PRODUCTION, WITH_IMAGE, Stack, in_the_long_form
from infraproof.planner import Planner
from infraproof.results import Results

#: Listeners without TLS: only without a domain, which is a deviation that the stack itself reports (`deviations`).
ALLOWED_WITHOUT_DOMAIN = {"CKV_AWS_2", "CKV_AWS_103", "CKV2_AWS_20"}


@pytest.fixture(scope="session")
def checkov() -> None:
    """checkov in its own environment (`make infra-checkov`)."""
    if not PROGRAM.exists():
        pytest.skip(f"no checkov at {PROGRAM}: run `make infra-checkov`, or set CHECKOV_CLI")


@pytest.mark.usefixtures("checkov")
@pytest.mark.parametrize(
    "stack", [*WITH_IMAGE, *in_the_long_form(*PRESET_STACKS, PRODUCTION)], ids=lambda stack: stack.name
)
def test_checkov_finds_nothing(stack: Stack, planner: Planner, results: Results) -> None:
    """Hundreds of rules pass, none fails."""
    found = verdict(planner.plan(stack).file)
    failed = [
        text for text in found.failed if text.split()[0] not in ALLOWED_WITHOUT_DOMAIN or "domain" in stack.variables
    ]
    results.add("plans", stack.name, checkov_passed=found.passed, checkov_failed=len(failed))
    assert found.passed > 100
    assert failed == []


def test_every_exception_has_a_reason() -> None:
    """Each rule that is skipped has a reason of at least five words on its line."""
    lines = [line for line in CONFIGURATION.read_text().splitlines() if re.match(r"\s*- CKV", line)]
    bare = [line.strip() for line in lines if len(line.partition("#")[2].split()) < 5]
    assert bare == []
    assert len(lines) <= 30
