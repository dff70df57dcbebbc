# Promise: a month's cost is told before it is spent, and nobody sets a budget that says nothing.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags                 = { Project = "modelyard", Module = "awsbudgets" }
  monthly_budget_usd   = 5000
  topic_arn            = "arn:aws:sns:eu-central-1:123456789012:modelyard-test-alerts"
  alert_emails         = ["oncall@example.com"]
  project              = "modelyard"
  anomaly_monitor      = "create"
  cost_allocation_tags = false
}

run "four_thresholds_reach_people" {
  command = plan
  module {
    source = "./modules/awsbudgets"
  }

  assert {
    condition     = aws_budgets_budget.this.limit_amount == "5000" && aws_budgets_budget.this.time_unit == "MONTHLY"
    error_message = "The budget is the one that was asked for, by the month."
  }
  assert {
    condition     = toset([for n in aws_budgets_budget.this.notification : "${n.notification_type} ${n.threshold}"]) == toset(["ACTUAL 50", "ACTUAL 80", "ACTUAL 100", "FORECASTED 100"])
    error_message = "Actual cost speaks at 50, 80 and 100 %, the forecast at 100 %."
  }
  assert {
    condition     = alltrue([for n in aws_budgets_budget.this.notification : length(n.subscriber_email_addresses) == 1 && length(n.subscriber_sns_topic_arns) == 1])
    error_message = "Each threshold reaches the topic and, unconfirmed or not, the addresses."
  }
  assert {
    condition     = length(aws_budgets_budget.this.cost_filter) == 0
    error_message = "Without active tags a filter would match nothing."
  }
  assert {
    condition     = aws_ce_anomaly_subscription.alerts["this"].threshold_expression[0].dimension[0].values == toset(["100"])
    error_message = "An anomaly speaks from two per cent of the budget on."
  }
}

run "an_existing_monitor_is_left_alone" {
  command = plan
  module {
    source = "./modules/awsbudgets"
  }
  variables {
    anomaly_monitor      = "exists"
    cost_allocation_tags = true
  }

  assert {
    condition     = length(aws_ce_anomaly_monitor.services) == 0 && length(aws_ce_anomaly_subscription.alerts) == 0
    error_message = "An account has one service monitor."
  }
  assert {
    condition     = one(one(aws_budgets_budget.this.cost_filter[*]).values) == "user:Project$modelyard" && length(aws_ce_cost_allocation_tag.this) == 3
    error_message = "Active tags narrow the budget to this project."
  }
}

run "refuses_a_budget_of_nothing" {
  command = plan
  module {
    source = "./modules/awsbudgets"
  }
  variables {
    monthly_budget_usd = 0
  }
  expect_failures = [var.monthly_budget_usd]
}

run "refuses_an_unknown_switch" {
  command = plan
  module {
    source = "./modules/awsbudgets"
  }
  variables {
    anomaly_monitor = "maybe"
  }
  expect_failures = [var.anomaly_monitor]
}
