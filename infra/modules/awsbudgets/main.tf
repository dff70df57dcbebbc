# What a month may cost, and who hears of it in time (OPS-5, COST-1). Figures are hours late: this warns, it stops nothing.

locals {
  mails = var.alert_emails
  notices = {
    actual-50    = { type = "ACTUAL", percent = 50 }
    actual-80    = { type = "ACTUAL", percent = 80 }
    actual-100   = { type = "ACTUAL", percent = 100 }
    forecast-100 = { type = "FORECASTED", percent = 100 }
  }
  # Two per cent of the budget, at least 10 USD: less is noise.
  anomaly_usd = max(10, ceil(var.monthly_budget_usd * 0.02))
}

resource "aws_budgets_budget" "this" {
  name         = "${var.context.name}-monthly"
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  tags         = var.tags

  # Before the tags are active in the bill, a filter by tag would match nothing and the budget would stay at 0 for ever.
  dynamic "cost_filter" {
    for_each = var.cost_allocation_tags ? [format("user:Project$%s", var.project)] : []

    content {
      name   = "TagKeyValue"
      values = [cost_filter.value]
    }
  }

  # Mail directly too: a topic's subscription is silent until somebody has confirmed it.
  dynamic "notification" {
    for_each = local.notices

    content {
      comparison_operator        = "GREATER_THAN"
      notification_type          = notification.value.type
      threshold                  = notification.value.percent
      threshold_type             = "PERCENTAGE"
      subscriber_email_addresses = local.mails
      subscriber_sns_topic_arns  = [var.topic_arn]
    }
  }
}

resource "aws_ce_anomaly_monitor" "services" {
  for_each = toset(var.anomaly_monitor == "create" ? ["this"] : [])

  name              = "${var.context.name}-services"
  monitor_type      = "DIMENSIONAL"
  monitor_dimension = "SERVICE"
  tags              = var.tags
}

resource "aws_ce_anomaly_subscription" "alerts" {
  for_each = toset(var.anomaly_monitor == "create" ? ["this"] : [])

  name             = "${var.context.name}-anomalies"
  frequency        = "IMMEDIATE"
  monitor_arn_list = [aws_ce_anomaly_monitor.services[each.key].arn]
  tags             = var.tags

  # Single findings are sent to topics only; a mail gets a summary.
  subscriber {
    type    = "SNS"
    address = var.topic_arn
  }

  threshold_expression {
    dimension {
      key           = "ANOMALY_TOTAL_IMPACT_ABSOLUTE"
      match_options = ["GREATER_THAN_OR_EQUAL"]
      values        = [tostring(local.anomaly_usd)]
    }
  }
}

resource "aws_ce_cost_allocation_tag" "this" {
  for_each = toset(var.cost_allocation_tags ? ["Project", "Environment", "Module"] : [])

  tag_key = each.key
  status  = "Active"
}
