# Alarms over several metrics: error budget, lost records, healthy hosts, and the two pages that join windows (PERF-5, DATA-2).

locals {
  budget     = 1 - var.objectives.availability
  target_tgs = { for colour, suffix in var.target_group_suffixes : colour => tomap({ LoadBalancer = var.load_balancer_suffix, TargetGroup = suffix }) }
  colours    = keys(var.target_group_suffixes)

  # Window, multiple of the allowed error rate, fewest requests that count. 14.4 over an hour spends 2 % of a month's budget,
  # 6 over six hours 5 %, 1 over three days 10 % (multi-window, multi-burn-rate alerts, The Site Reliability Workbook, ch. 5).
  burns = var.watched.api == null ? {} : {
    burn-1h  = { period = 3600, factor = 14.4, floor = 100, of = 1, alone = false }
    burn-5m  = { period = 300, factor = 14.4, floor = 20, of = 1, alone = false }
    burn-6h  = { period = 21600, factor = 6, floor = 100, of = 1, alone = false }
    burn-30m = { period = 1800, factor = 6, floor = 20, of = 1, alone = false }
    burn-3d  = { period = 86400, factor = 1, floor = 100, of = 3, alone = true }
  }
  api_metrics = {
    errors = { namespace = "AWS/ApiGateway", metric = "5XXError", dims = local.api_dims, stat = "Sum" }
    count  = { namespace = "AWS/ApiGateway", metric = "Count", dims = local.api_dims, stat = "Sum" }
  }
  of_burns = { for key, burn in local.burns : key => {
    says       = "${burn.alone ? "ticket" : "part of a page"}: errors spend the budget ${burn.factor} times too fast over ${trimprefix(key, "burn-")} (PERF-5)"
    expression = "IF(count >= ${burn.floor}, errors / count, 0)", metrics = local.api_metrics, alone = burn.alone
    compare    = "GreaterThanOrEqualToThreshold", threshold = burn.factor * local.budget, period = burn.period, of = burn.of, datapoints = burn.of, missing = "notBreaching"
  } }
  of_gateway = var.watched.api == null ? {} : {
    errors-sudden = {
      says       = "page: more than 5 % of the requests fail"
      expression = "IF(count >= 20, 100 * errors / count, 0)", metrics = local.api_metrics, alone = true
      compare    = "GreaterThanThreshold", threshold = 5, period = 60, of = 3, datapoints = 2, missing = "notBreaching"
    }
    gateway-overhead = {
      says       = "ticket: the gateway itself takes more than 200 ms of p95"
      expression = "latency - inside", alone = true
      metrics = {
        latency = { namespace = "AWS/ApiGateway", metric = "Latency", dims = local.api_dims, stat = "p95" }
        inside  = { namespace = "AWS/ApiGateway", metric = "IntegrationLatency", dims = local.api_dims, stat = "p95" }
      }
      compare = "GreaterThanThreshold", threshold = 200, period = 60, of = 5, datapoints = 5, missing = "notBreaching"
    }
    # Both metrics carry the time of the answer, so late records fall into their own period and the difference goes to 0.
    prediction-gap = {
      says       = "page: answered predictions are missing in the prediction log (DATA-2)"
      expression = "FILL(answered, 0) - FILL(logged, 0)", alone = true
      metrics = {
        answered = { namespace = "Modelyard", metric = "PredictionsAnswered", dims = local.modelyard_dims, stat = "Sum" }
        logged   = { namespace = "Modelyard", metric = "PredictionsLogged", dims = local.modelyard_dims, stat = "Sum" }
      }
      compare = "GreaterThanThreshold", threshold = 0, period = 900, of = 2, datapoints = 2, missing = "notBreaching"
    }
  }
  of_hosts = var.watched.ecs == null ? {} : {
    # The groups alternate with every release: one of them alone would be blind half of the time.
    healthy-hosts = {
      says       = "page: fewer healthy tasks than the floor, over both colours (PERF-5)"
      expression = join(" + ", [for c in local.colours : "FILL(${c}, 0)"]), alone = true
      metrics    = { for c in local.colours : c => { namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dims = local.target_tgs[c], stat = "Minimum" } }
      compare    = "LessThanThreshold", threshold = var.watched.ecs.min_tasks, period = 60, of = 2, datapoints = 2, missing = "breaching"
    }
  }
  of_storage = local.relational ? {
    database-slope = {
      says       = "ticket: at the pace of the last hours the database's storage is full within four days"
      expression = "IF(RATE(free) < 0, free / (0 - RATE(free)) / 86400, 365)", alone = true
      metrics    = { free = { namespace = "AWS/RDS", metric = "FreeStorageSpace", dims = local.database_dims, stat = "Average" } }
      compare    = "LessThanThreshold", threshold = 4, period = 3600, of = 6, datapoints = 6, missing = "notBreaching"
    }
  } : {}
  computed = merge(local.of_burns, local.of_gateway, local.of_hosts, local.of_storage)

  pages = var.watched.api == null ? {} : {
    burn-fast = { long = "burn-1h", short = "burn-5m", says = "page: at this pace the month's error budget is gone in two days (PERF-5)" }
    burn-slow = { long = "burn-6h", short = "burn-30m", says = "page: at this pace the month's error budget is gone in five days (PERF-5)" }
  }
}

resource "aws_cloudwatch_metric_alarm" "computed" {
  for_each = local.computed

  alarm_name          = "${var.context.name}-${each.key}"
  alarm_description   = each.value.says
  comparison_operator = each.value.compare
  threshold           = each.value.threshold
  evaluation_periods  = each.value.of
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = each.value.missing
  # Half of a page stays silent: the composite alarm speaks when both windows agree.
  alarm_actions = each.value.alone ? [aws_sns_topic.alerts.arn] : []
  ok_actions    = each.value.alone ? [aws_sns_topic.alerts.arn] : []
  tags          = var.tags

  metric_query {
    id          = "result"
    expression  = each.value.expression
    label       = each.key
    return_data = true
  }

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id = metric_query.key

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric
        dimensions  = metric_query.value.dims
        stat        = metric_query.value.stat
        period      = each.value.period
      }
    }
  }
}

resource "aws_cloudwatch_composite_alarm" "page" {
  for_each = local.pages

  alarm_name        = "${var.context.name}-${each.key}"
  alarm_description = each.value.says
  alarm_rule = join(" AND ", [for part in [each.value.long, each.value.short] :
    "ALARM(\"${aws_cloudwatch_metric_alarm.computed[part].alarm_name}\")"
  ])
  alarm_actions = [aws_sns_topic.alerts.arn]
  ok_actions    = [aws_sns_topic.alerts.arn]
  tags          = var.tags
}
