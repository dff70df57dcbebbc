"""COST-1 and OPS-5: the money is bounded, seen and traced to its cause."""

from __future__ import annotations

from infraproof.plan import Plan, Resource
from readers.costs import monthly_usd

from checks.registry import Problems, at_least, check, each, exactly

LIMIT_USD = 5000
TAGS = {"Project", "Environment", "Module", "Owner", "ManagedBy"}


@check("OPS-5")
def budget_warns_early(plan: Plan) -> Problems:
    """The monthly budget has the amount asked for and warns three times on what was spent and once on the forecast."""
    budgets, amount = plan.of("aws_budgets_budget"), float(plan.variable("monthly_budget_usd") or 0)
    problems = exactly(1, budgets, "budget")
    for budget in budgets:
        notes = budget.blocks("notification")
        kinds = [note.get("notification_type") for note in notes]
        problems += at_least(3, [k for k in kinds if k == "ACTUAL"], f"{budget.address}: warning on actual cost")
        problems += at_least(1, [k for k in kinds if k == "FORECASTED"], f"{budget.address}: warning on the forecast")
        if float(budget.get("limit_amount") or 0) != amount or budget.get("time_unit") != "MONTHLY":
            problems.append(f"{budget.address}: must be {amount} USD a month")
        told = [n.get("subscriber_email_addresses") or n.get("subscriber_sns_topic_arns") for n in notes]
        known_later = "True" in str(budget.unknown.get("notification"))
        problems += [] if all(told) or known_later else [f"{budget.address}: a warning reaches nobody"]
    return problems


@check("OPS-5")
def anomalies_are_reported(plan: Plan) -> Problems:
    """Unusual cost is reported, by our own monitor unless the account has one."""
    exists = (plan.variable("account") or {}).get("anomaly_monitor") == "exists"
    return exactly(0 if exists else 1, plan.of("aws_ce_anomaly_monitor"), "anomaly monitor") + at_least(
        0 if exists else 1, plan.of("aws_ce_anomaly_subscription"), "anomaly subscription"
    )


@check("OPS-5")
def everything_is_tagged(plan: Plan) -> Problems:
    """Everything that takes tags carries the five that cost allocation asks for."""
    taggable = [r for r in plan.resources if "tags_all" in r.values or "tags_all" in r.unknown]
    known = [r for r in taggable if isinstance(r.get("tags_all"), dict)]
    return at_least(20, known, "tagged resources") + [
        f"{r.address}: lacks {sorted(TAGS - set(r.get('tags_all')))}" for r in known if TAGS - set(r.get("tags_all"))
    ]


@check("OPS-5")
def a_first_apply_activates_no_tags(plan: Plan) -> Problems:
    """Cost allocation tags are activated only when asked for: in an empty account nobody has seen them yet."""
    wanted = 3 if plan.variable("cost_allocation_tags") else 0
    return exactly(wanted, plan.of("aws_ce_cost_allocation_tag"), "activated cost tag")


@check("COST-1")
def budget_is_within_the_requirement(plan: Plan) -> Problems:
    """The default budget is no larger than what COST-1 allows."""
    amount = plan.variable("monthly_budget_usd") or 0
    return [] if 0 < amount <= LIMIT_USD else [f"the budget is {amount} USD, at most {LIMIT_USD} expected"]


@check("COST-1")
def stack_costs_less_than_the_limit(plan: Plan) -> Problems:
    """List prices of what is planned, at the declared load (on average a fifth of its peak), stay below the limit."""
    parts = monthly_usd(plan)
    total = sum(parts.values())
    return [] if total < LIMIT_USD else [f"about {total:.0f} USD a month: {parts}"]


@check("COST-1")
def storage_moves_to_cheaper_classes(plan: Plan) -> Problems:
    """Every bucket has a lifecycle, and none keeps the debris of broken uploads."""
    items = plan.of("aws_s3_bucket_lifecycle_configuration")
    return at_least(len(plan.of("aws_s3_bucket")), items, "lifecycles, one a bucket") + each(
        items, ends_broken_uploads, "must end broken uploads"
    )


def ends_broken_uploads(lifecycle: Resource) -> bool:
    """True when a rule removes the parts of uploads that were never finished."""
    return any(rule.get("abort_incomplete_multipart_upload") for rule in lifecycle.blocks("rule"))
