"""Broken money: OPS-5 and COST-1."""

from mutations.registry import BARE, FARGATE, broken

BUDGET = "awsbudgets/main"

MUTATIONS = (
    broken(
        "no forecast",
        "OPS-5.budget_warns_early",
        BARE,
        BUDGET,
        '{ type = "FORECASTED", percent = 100 }',
        '{ type = "ACTUAL", percent = 100 }',
    ),
    broken(
        "warnings to nobody",
        "OPS-5.budget_warns_early",
        BARE,
        BUDGET,
        "      subscriber_email_addresses = local.mails\n      subscriber_sns_topic_arns  = [var.topic_arn]\n",
        "      subscriber_email_addresses = []\n",
    ),
    broken(
        "another amount",
        "OPS-5.budget_warns_early",
        BARE,
        BUDGET,
        "limit_amount = tostring(var.monthly_budget_usd)",
        'limit_amount = "50000"',
    ),
    broken(
        "anomalies unseen",
        "OPS-5.anomalies_are_reported",
        BARE,
        BUDGET,
        'resource "aws_ce_anomaly_subscription" "alerts" {\n  for_each = toset(var.anomaly_monitor == "create"',
        'resource "aws_ce_anomaly_subscription" "alerts" {\n  for_each = toset(var.anomaly_monitor == "never"',
    ),
    broken(
        "untraceable cost",
        "OPS-5.everything_is_tagged",
        BARE,
        "locals.tf",
        "    Owner       = var.owner\n",
        "",
    ),
    broken(
        "tags before anybody saw them",
        "OPS-5.a_first_apply_activates_no_tags",
        BARE,
        BUDGET,
        'var.cost_allocation_tags ? ["Project", "Environment", "Module"] : []',
        '["Project", "Environment", "Module"]',
    ),
    broken(
        "budget beyond the requirement",
        "COST-1.budget_is_within_the_requirement",
        BARE,
        "variables.tf",
        "  default     = 5000\n",
        "  default     = 50000\n",
    ),
    broken(
        "a database for millions",
        "COST-1.stack_costs_less_than_the_limit",
        FARGATE,
        "database/rds",
        "  allocated_storage     = var.sizing.storage_gb\n  max_allocated_storage = var.sizing.max_storage_gb\n",
        "  allocated_storage     = 20000\n  max_allocated_storage = 30000\n",
    ),
    broken(
        "debris of uploads",
        "COST-1.storage_moves_to_cheaper_classes",
        BARE,
        "storage/main",
        "    abort_incomplete_multipart_upload {\n      days_after_initiation = 7\n    }\n",
        "    expiration {\n      expired_object_delete_marker = true\n    }\n",
    ),
)
