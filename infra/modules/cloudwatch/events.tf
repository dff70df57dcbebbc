# What AWS tells as an event and not as a metric.

locals {
  events = {
    backup-failed = {
      says    = "A backup, copy or restore job of the vault failed (OPS-4)."
      pattern = { source = ["aws.backup"], detail-type = ["Backup Job State Change", "Copy Job State Change", "Restore Job State Change"], detail = { state = ["FAILED", "ABORTED", "EXPIRED"], backupVaultName = [var.backup_vault_name] } }
    }
    health = {
      says    = "AWS Health tells of an event that concerns this account."
      pattern = { source = ["aws.health"], detail-type = ["AWS Health Event"], detail = { eventTypeCategory = ["issue"] } }
    }
  }
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
  arn       = aws_sns_topic.alerts.arn

  dead_letter_config {
    arn = aws_sqs_queue.undelivered.arn
  }
}
