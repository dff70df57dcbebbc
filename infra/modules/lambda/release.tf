# Blue/green of versions: CodeDeploy asks the hook, shifts the alias, and goes back when an alarm speaks (OPS-2, OPS-6).

locals {
  # AWS ships the common steps; only other figures need a configuration of our own.
  shipped = {
    CANARY-10-5  = "CodeDeployDefault.LambdaCanary10Percent5Minutes"
    CANARY-10-10 = "CodeDeployDefault.LambdaCanary10Percent10Minutes"
    CANARY-10-15 = "CodeDeployDefault.LambdaCanary10Percent15Minutes"
    CANARY-10-30 = "CodeDeployDefault.LambdaCanary10Percent30Minutes"
    LINEAR-10-1  = "CodeDeployDefault.LambdaLinear10PercentEvery1Minute"
    LINEAR-10-2  = "CodeDeployDefault.LambdaLinear10PercentEvery2Minutes"
    LINEAR-10-3  = "CodeDeployDefault.LambdaLinear10PercentEvery3Minutes"
    LINEAR-10-10 = "CodeDeployDefault.LambdaLinear10PercentEvery10Minutes"
  }
  steps   = "${var.release.strategy}-${var.release.step_percent}-${var.release.step_minutes}"
  at_once = var.release.strategy == "BLUE_GREEN"
  own     = !local.at_once && !contains(keys(local.shipped), local.steps)
}

resource "aws_codedeploy_app" "this" {
  name             = var.function_name
  compute_platform = "Lambda"
  tags             = var.tags
}

resource "aws_codedeploy_deployment_config" "this" {
  for_each = toset(local.own ? [local.steps] : [])

  # Configurations can't be changed, so the figures are in the name.
  deployment_config_name = "${var.function_name}-${lower(each.key)}"
  compute_platform       = "Lambda"

  traffic_routing_config {
    type = var.release.strategy == "CANARY" ? "TimeBasedCanary" : "TimeBasedLinear"

    dynamic "time_based_canary" {
      for_each = var.release.strategy == "CANARY" ? [var.release] : []

      content {
        percentage = time_based_canary.value.step_percent
        interval   = time_based_canary.value.step_minutes
      }
    }

    dynamic "time_based_linear" {
      for_each = var.release.strategy == "LINEAR" ? [var.release] : []

      content {
        percentage = time_based_linear.value.step_percent
        interval   = time_based_linear.value.step_minutes
      }
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_codedeploy_deployment_group" "this" {
  app_name               = aws_codedeploy_app.this.name
  deployment_group_name  = var.alias_name
  service_role_arn       = var.role_arns["codedeploy"]
  deployment_config_name = local.at_once ? "CodeDeployDefault.LambdaAllAtOnce" : local.own ? aws_codedeploy_deployment_config.this[local.steps].deployment_config_name : local.shipped[local.steps]
  tags                   = var.tags

  deployment_style {
    deployment_type   = "BLUE_GREEN"
    deployment_option = "WITH_TRAFFIC_CONTROL"
  }

  alarm_configuration {
    enabled = true
    alarms  = [for alarm in aws_cloudwatch_metric_alarm.deployment : alarm.alarm_name]
  }

  auto_rollback_configuration {
    enabled = true
    events  = ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"]
  }

  trigger_configuration {
    trigger_name       = "failed"
    trigger_events     = ["DeploymentFailure", "DeploymentRollback", "DeploymentStop"]
    trigger_target_arn = var.topic_arn
  }
}

# Over the alias, not one version: a version's number would change with every release and leave the plan dirty.
resource "aws_cloudwatch_metric_alarm" "deployment" {
  for_each = {
    deploy-errors  = { says = "the function fails", metric = "Errors", stat = "Sum", threshold = 5 }
    deploy-latency = { says = "p95 of the function is above the objective", metric = "Duration", stat = "p95", threshold = var.objectives.latency_p95_ms }
  }

  alarm_name          = "${var.context.name}-${each.key}"
  alarm_description   = "release: ${each.value.says}: a running deployment is rolled back (OPS-2)"
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = var.function_name, Resource = "${var.function_name}:${var.alias_name}" }
  statistic           = each.value.stat == "Sum" ? "Sum" : null
  extended_statistic  = each.value.stat == "Sum" ? null : each.value.stat
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  # A percentile of three requests says nothing.
  evaluate_low_sample_count_percentiles = each.value.stat == "Sum" ? null : "ignore"
  alarm_actions                         = [var.topic_arn]
  tags                                  = var.tags
}

resource "aws_lambda_function" "deploy_hook" {
  function_name    = var.hook_name
  description      = "Asks a new version for readiness and for a refusal without a key before the alias moves."
  role             = var.role_arns["deploy_hook"]
  runtime          = "python3.13"
  handler          = "index.handler"
  filename         = "${path.module}/functions/deploy_hook.zip"
  source_code_hash = filebase64sha256("${path.module}/functions/deploy_hook.zip")
  architectures    = ["arm64"]
  memory_size      = 256
  timeout          = 120
  kms_key_arn      = var.key_arns["secrets"]
  tags             = var.tags

  # Outside the VPC on purpose: it speaks to Lambda and CodeDeploy only, and the VPC has no endpoint for the latter.

  tracing_config {
    mode = "PassThrough"
  }

  logging_config {
    log_format = "JSON"
    log_group  = var.log_group_names["hook"]
  }

  environment {
    variables = {
      FUNCTION  = var.function_name
      ROOT_PATH = var.environment["MODELYARD_HTTP__ROOT_PATH"]
    }
  }
}
