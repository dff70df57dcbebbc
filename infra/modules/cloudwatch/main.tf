# Log groups, their filters and the topic that every alarm of the stack speaks through (OPS-3, DATA-4).

locals {
  # CloudWatch knows only these periods; the next longer one keeps the promise.
  periods_days   = [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653]
  data_days      = min([for d in local.periods_days : d if d >= var.retention_days]...)
  audit_days     = max(400, local.data_days)
  rule_arns      = "arn:${var.context.partition}:events:${var.context.region}:${var.context.account_id}:rule/${var.context.name}-*"
  alarm_arns     = "arn:${var.context.partition}:cloudwatch:${var.context.region}:${var.context.account_id}:alarm:${var.context.name}-*"
  topic_arn      = "arn:${var.context.partition}:sns:${var.context.region}:${var.context.account_id}:${var.topic_name}"
  queue_name     = "${var.context.name}-undelivered"
  queue_arn      = "arn:${var.context.partition}:sqs:${var.context.region}:${var.context.account_id}:${local.queue_name}"
  own_account    = { StringEquals = { "aws:SourceAccount" = var.context.account_id } }
  without_tls    = { Bool = { "aws:SecureTransport" = "false" } }
  on_lambda      = var.watched.function != null
  spool_bytes    = var.watched.ephemeral_gib * 1024 * 1024 * 1024
  modelyard_dims = tomap({ Environment = var.context.environment })
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = var.log_groups

  name              = each.value
  kms_key_id        = var.key_arn
  retention_in_days = each.key == "trail" ? local.audit_days : local.data_days
  tags              = var.tags
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each = {
    service-errors   = { group = "service", pattern = "{ $.level = \"error\" }", metric = "ServiceErrors" }
    keys-refused     = { group = "gateway", pattern = "{ ($.status = 401) || ($.status = 403) }", metric = "KeysRefused" }
    gateway-throttle = { group = "gateway", pattern = "{ $.status = 429 }", metric = "GatewayThrottled" }
    firewall-blocks  = { group = "waf", pattern = "{ $.action = \"BLOCK\" }", metric = "FirewallBlocks" }
  }

  name           = "${var.context.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.this[each.value.group].name
  pattern        = each.value.pattern

  metric_transformation {
    name          = each.value.metric
    namespace     = "${var.context.name}/logs"
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

resource "aws_sns_topic" "alerts" {
  name              = var.topic_name
  kms_master_key_id = var.key_arn
  tags              = var.tags
}

resource "aws_sns_topic_policy" "alerts" {
  arn = aws_sns_topic.alerts.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      for sid, speaker in {
        Alarms    = { service = "cloudwatch.amazonaws.com", extra = { ArnLike = { "aws:SourceArn" = local.alarm_arns } } }
        Events    = { service = "events.amazonaws.com", extra = { ArnLike = { "aws:SourceArn" = local.rule_arns } } }
        Budgets   = { service = "budgets.amazonaws.com", extra = {} }
        Anomalies = { service = "costalerts.amazonaws.com", extra = {} }
        Deploys   = { service = "codedeploy.amazonaws.com", extra = {} }
        } : {
        Sid       = sid
        Effect    = "Allow"
        Principal = { Service = speaker.service }
        Action    = "sns:Publish"
        Resource  = local.topic_arn
        Condition = merge(local.own_account, speaker.extra)
        }], [{
        # The wildcard principal is a refusal: nobody publishes without TLS.
        Sid       = "OnlyTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = local.topic_arn
        Condition = local.without_tls
    }])
  })
}

resource "aws_sns_topic_subscription" "mail" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = each.value
}

# What an event rule could not deliver stays here; a message in it is an alarm of its own.
resource "aws_sqs_queue" "undelivered" {
  name                              = local.queue_name
  kms_master_key_id                 = var.key_arn
  kms_data_key_reuse_period_seconds = 300
  message_retention_seconds         = 1209600
  tags                              = var.tags
}

resource "aws_sqs_queue_policy" "undelivered" {
  queue_url = aws_sqs_queue.undelivered.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Events"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = local.queue_arn
        Condition = merge(local.own_account, { ArnLike = { "aws:SourceArn" = local.rule_arns } })
      },
      {
        # The wildcard principal is a refusal: nobody speaks to the queue without TLS.
        Sid       = "OnlyTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = local.queue_arn
        Condition = local.without_tls
      },
    ]
  })
}
