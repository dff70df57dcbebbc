# Promise: what goes wrong is heard by somebody, once, and logs are kept as long as promised and no longer.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags              = { Project = "modelyard", Module = "cloudwatch" }
  log_groups        = { service = "/modelyard/test/service", gateway = "/modelyard/test/gateway", waf = "aws-waf-logs-modelyard-test", trail = "/modelyard/test/trail" }
  retention_days    = 90
  key_arn           = "arn:aws:kms:eu-central-1:123456789012:key/l"
  topic_name        = "modelyard-test-alerts"
  alert_emails      = ["oncall@example.com", "team@example.com"]
  objectives        = { availability = 0.999, latency_p95_ms = 1000 }
  backup_vault_name = "modelyard-test-backup"
  watch_certificate = false
  certificate_arn   = null
  watched = {
    api           = { name = "modelyard-test", stage = "live" }
    ecs           = { cluster = "modelyard-test", service = "modelyard-test-service", min_tasks = 2, max_tasks = 10 }
    function      = null
    database      = { engine = "postgres", name = "modelyard-test", instance_class = "db.m7g.large", storage_gb = 100, table_names = {} }
    cache         = { "0" = "modelyard-test-limits-001" }
    ephemeral_gib = 40
  }
  load_balancer_suffix  = "app/modelyard-test/1"
  target_group_suffixes = { blue = "targetgroup/modelyard-test-blue/1", green = "targetgroup/modelyard-test-green/1" }
}

run "logs_are_encrypted_and_end" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }

  assert {
    condition     = alltrue([for g in aws_cloudwatch_log_group.this : g.kms_key_id == var.key_arn])
    error_message = "Every log group is encrypted with the logs' key."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this["service"].retention_in_days == 90 && aws_cloudwatch_log_group.this["trail"].retention_in_days == 400
    error_message = "Data logs stay 90 days, audit logs 400."
  }
}

run "retention_is_never_cut_short" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }
  variables {
    retention_days = 100
  }

  assert {
    condition     = aws_cloudwatch_log_group.this["service"].retention_in_days == 120
    error_message = "CloudWatch has no period of 100 days: the next longer one."
  }
}

run "alarms_speak" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }

  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.direct : length(a.alarm_actions) == 1 && contains(["breaching", "notBreaching"], a.treat_missing_data)])
    error_message = "Every alarm has a receiver and an opinion on missing data."
  }
  assert {
    condition     = toset([for k, a in aws_cloudwatch_metric_alarm.computed : k if length(a.alarm_actions) == 0]) == toset(["burn-1h", "burn-5m", "burn-6h", "burn-30m"])
    error_message = "Only the halves of the two pages are silent by themselves."
  }
  assert {
    condition     = aws_cloudwatch_composite_alarm.page["burn-fast"].alarm_rule == "ALARM(\"modelyard-test-burn-1h\") AND ALARM(\"modelyard-test-burn-5m\")" && length(aws_cloudwatch_composite_alarm.page["burn-slow"].alarm_actions) == 1
    error_message = "A page needs both windows."
  }
  assert {
    condition     = abs(aws_cloudwatch_metric_alarm.computed["burn-1h"].threshold - 0.0144) < 0.000001
    error_message = "14.4 times the allowed error rate of 99.9 %."
  }
  assert {
    condition     = one([for q in aws_cloudwatch_metric_alarm.computed["prediction-gap"].metric_query : q.expression if q.id == "result"]) == "FILL(answered, 0) - FILL(logged, 0)" && aws_cloudwatch_metric_alarm.computed["prediction-gap"].threshold == 0
    error_message = "One lost record is enough (DATA-2)."
  }
  assert {
    condition     = toset([for q in aws_cloudwatch_metric_alarm.computed["healthy-hosts"].metric_query : q.id]) == toset(["result", "blue", "green"])
    error_message = "Healthy hosts are counted over both colours."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.direct["latency-p95"].threshold == 1000 && aws_cloudwatch_metric_alarm.direct["latency-p95"].extended_statistic == "p95"
    error_message = "p95 at the objective (API-6)."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.direct["heartbeat"].treat_missing_data == "breaching"
    error_message = "Silence is an alarm."
  }
}

run "topic_is_encrypted_and_closed" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }

  assert {
    condition     = aws_sns_topic.alerts.kms_master_key_id == var.key_arn && length(aws_sns_topic_subscription.mail) == 2
    error_message = "Encrypted, and everybody is subscribed."
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_sns_topic_policy.alerts.policy).Statement : s.Condition.StringEquals["aws:SourceAccount"] == var.context.account_id if s.Effect == "Allow"])
    error_message = "Services may publish for this account only."
  }
  assert {
    condition     = anytrue([for s in jsondecode(aws_sns_topic_policy.alerts.policy).Statement : s.Effect == "Deny" && s.Condition.Bool["aws:SecureTransport"] == "false" if s.Effect == "Deny"])
    error_message = "Nobody publishes without TLS."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) >= 8
    error_message = "The dashboard parses and shows every part."
  }
}

run "lambda_and_dynamodb" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }
  variables {
    watched = {
      api           = { name = "modelyard-test", stage = "live" }
      ecs           = null
      function      = { name = "modelyard-test-service", alias = "live" }
      database      = { engine = "dynamodb", name = "modelyard-test", instance_class = null, storage_gb = 100, table_names = { metadata = "modelyard-test-metadata", predictions = "modelyard-test-predictions" } }
      cache         = {}
      ephemeral_gib = 40
    }
    load_balancer_suffix  = ""
    target_group_suffixes = {}
  }

  assert {
    condition     = alltrue([for k in ["function-throttles", "function-errors", "table-predictions-write-throttled", "prediction-gap", "spool-age"] : contains(concat(keys(aws_cloudwatch_metric_alarm.direct), keys(aws_cloudwatch_metric_alarm.computed)), k)])
    error_message = "The other branch is watched as well."
  }
  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.direct), "database-cpu")
    error_message = "Nothing is watched that doesn't exist: it would be red for ever."
  }
}

run "before_there_is_an_image" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }
  variables {
    watched = {
      api           = null
      ecs           = null
      function      = null
      database      = { engine = "mysql", name = "modelyard-test", instance_class = "db.t4g.medium", storage_gb = 100, table_names = {} }
      cache         = {}
      ephemeral_gib = 40
    }
    load_balancer_suffix  = ""
    target_group_suffixes = {}
  }

  assert {
    condition     = length(aws_cloudwatch_composite_alarm.page) == 0 && contains(keys(aws_cloudwatch_metric_alarm.direct), "database-credits")
    error_message = "Only what exists is watched; burstable classes by their credits too."
  }
}

run "refuses_no_retention" {
  command = plan
  module {
    source = "./modules/cloudwatch"
  }
  variables {
    retention_days = 0
  }
  expect_failures = [var.retention_days]
}
