# Findings and failed deployments arrive as events; what can't be delivered waits in a queue that has an alarm.

locals {
  events = merge({
    deployment-failed = {
      says    = "A deployment of the service failed or was rolled back (OPS-2)."
      pattern = { source = ["aws.ecs"], detail-type = ["ECS Deployment State Change"], resources = [{ prefix = "arn:${var.context.partition}:ecs:${var.context.region}:${var.context.account_id}:service/${var.cluster_name}/" }], detail = { eventName = ["SERVICE_DEPLOYMENT_FAILED"] } }
    }
    }, var.guardduty == "off" ? {} : {
    finding = {
      says    = "GuardDuty found something of severity 7 or more."
      pattern = { source = ["aws.guardduty"], detail-type = ["GuardDuty Finding"], detail = { severity = [{ numeric = [">=", 7] }] } }
    }
    }, var.security_hub == "off" ? {} : {
    control-failed = {
      says    = "A Security Hub control of critical severity fails."
      pattern = { source = ["aws.securityhub"], detail-type = ["Security Hub Findings - Imported"], detail = { findings = { Compliance = { Status = ["FAILED"] }, Severity = { Label = ["CRITICAL"] }, Workflow = { Status = ["NEW"] } } } }
    }
  })
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.events

  name          = "${var.context.name}-${each.key}"
  description   = each.value.says
  event_pattern = jsonencode(each.value.pattern)
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "topic" {
  for_each = local.events

  rule      = aws_cloudwatch_event_rule.this[each.key].name
  target_id = "topic"
  arn       = var.topic_arn

  dead_letter_config {
    arn = var.undelivered_arn
  }
}
