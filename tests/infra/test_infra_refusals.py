"""Wrong variables are refused at plan time, each with the sentence that says what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import pytest
from infraproof.combinations import combination
from infraproof.planner import Planner
from infraproof.results import Results

GOOD = combination("ecs-fargate", "postgres")
TAGGED = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/modelyard:latest"

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown compute": ({"compute": "kubernetes"}, 'compute must be "ecs-fargate"'),
    "unknown database": ({"database": "oracle"}, 'database must be "postgres", "mysql" or "dynamodb".'),
    "retention below a day": ({"retention_days": 0}, "retention_days must be a whole number of days, at least 1"),
    "image by a tag": ({"image": TAGGED}, "image must name an ECR image by its digest"),
    "budget of nothing": ({"monthly_budget_usd": 0}, "monthly_budget_usd must be above 0"),
    "e-mail that is none": ({"alert_emails": ["operations"]}, "alert_emails must hold at least one e-mail address"),
    "nobody to alert": ({"alert_emails": []}, "alert_emails must hold at least one e-mail address"),
    "range too small": ({"network": {"cidr": "10.0.0.0/26"}}, "network.cidr is too small for the subnets"),
    "production alone": (
        {"environment": "production", "high_availability": False},
        "high_availability = false is refused in production",
    ),
    "domain without a zone": ({"domain": {"name": "api.example.com"}}, "domain needs zone_id, the Route 53 zone"),
    "production in the clear": ({"environment": "production", "domain": None}, "domain is required in production"),
    "spool that freezes": (
        {"compute": "lambda", "database": "dynamodb", "journal_durability": "process"},
        'journal_durability = "process" is refused with compute = "lambda"',
    ),
    "release in place": ({"release": {"strategy": "ROLLING"}}, "release.strategy must be BLUE_GREEN"),
    "a plan without a rate": (
        {"clients": {"free": {"rate_per_second": 0, "burst": 1}}},
        "clients needs at least one tier",
    ),
    "old TLS": (
        {"domain": {"name": "api.example.com", "zone_id": "Z0123456789ABCDEFGHIJ", "tls_policy": "TLS_1_0"}},
        "domain.tls_policy must be one of API Gateway's policies of TLS 1.2 or 1.3",
    ),
    "unknown login of the proxy": (
        # Terraform looks at `lambda` only where `compute`, which it is compared with, is sound.
        {"compute": "lambda", "database": "dynamodb", "lambda": {"proxy_login": "password"}},
        'lambda.proxy_login must be "iam" (tokens end to end) or "secret"',
    ),
    "unknown counter": ({"valkey": "redis"}, 'valkey must be "node", "serverless" or "none"'),
}


def together(cases: Iterable[str]) -> list[tuple[str, ...]]:
    """The cases in few groups without a variable twice in one: Terraform refuses all of a group at once."""
    groups: list[list[str]] = []
    for case in cases:
        named = set(REFUSALS[case][0])
        room = (group for group in groups if not any(named & set(REFUSALS[other][0]) for other in group))
        group = next(room, None)
        if group is None:
            groups.append([case])
        else:
            group.append(case)
    return [tuple(group) for group in groups]


@pytest.fixture(scope="module")
def refused(planner: Planner, request: pytest.FixtureRequest) -> dict[str, Future[tuple[str, ...]]]:
    """What Terraform says to each case: alone in the long form, several in one plan in the short."""
    alone = "infra_long" in (request.config.getoption("-m") or "")
    begun = {}
    for group in [(case,) for case in REFUSALS] if alone else together(REFUSALS):
        variables = {name: value for case in group for name, value in REFUSALS[case][0].items()}
        answer = planner.refused(GOOD.but(" and ".join(group), **variables))
        begun.update(dict.fromkeys(group, answer))
    return begun


@pytest.mark.parametrize("case", REFUSALS, ids=str)
def test_wrong_variables_are_refused_with_a_sentence(
    case: str, refused: dict[str, Future[tuple[str, ...]]], results: Results
) -> None:
    """The plan fails, and exactly because of the sentence that names the variable and what it may hold."""
    variables, sentence = REFUSALS[case]
    results.add("refusals", case, variables=variables, sentence=sentence)
    errors = refused[case].result()
    assert any(sentence in error for error in errors), f"expected {sentence!r} among {errors}"
    assert all("Invalid value for variable" in error for error in errors), errors
