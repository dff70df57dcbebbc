# Services that exist once per account and region: "create" makes them, "exists" leaves another stack's alone.

locals {
  created = {
    config       = var.config == "create" ? toset(["this"]) : toset([])
    guardduty    = var.guardduty == "create" ? toset(["this"]) : toset([])
    security_hub = var.security_hub == "create" ? toset(["this"]) : toset([])
  }
}

resource "aws_config_configuration_recorder" "this" {
  for_each = local.created.config

  name     = var.context.name
  role_arn = var.role_arns["config"]

  # Everything but network interfaces: every scaling task makes some, and each one would be recorded and billed.
  recording_group {
    all_supported                 = false
    include_global_resource_types = false

    exclusion_by_resource_types {
      resource_types = ["AWS::EC2::NetworkInterface"]
    }
    recording_strategy {
      use_only = "EXCLUSION_BY_RESOURCE_TYPES"
    }
  }
}

resource "aws_config_delivery_channel" "this" {
  for_each = local.created.config

  name           = var.context.name
  s3_bucket_name = var.audit_bucket
  s3_key_prefix  = "config"
  s3_kms_key_arn = var.key_arn

  snapshot_delivery_properties {
    delivery_frequency = "TwentyFour_Hours"
  }

  # AWS refuses a channel without a recorder.
  depends_on = [aws_config_configuration_recorder.this]
}

resource "aws_config_configuration_recorder_status" "this" {
  for_each = local.created.config

  name       = aws_config_configuration_recorder.this[each.key].name
  is_enabled = true

  # A recorder can't start before it has a channel.
  depends_on = [aws_config_delivery_channel.this]
}

resource "aws_guardduty_detector" "this" {
  for_each = local.created.guardduty

  enable                       = true
  finding_publishing_frequency = "FIFTEEN_MINUTES"
  tags                         = var.tags
}

# Runtime monitoring stays off: it needs an agent beside every task and is the dearest of the features.
resource "aws_guardduty_detector_feature" "this" {
  for_each = var.guardduty == "create" ? toset(["S3_DATA_EVENTS", "RDS_LOGIN_EVENTS", "LAMBDA_NETWORK_LOGS"]) : toset([])

  detector_id = aws_guardduty_detector.this["this"].id
  name        = each.key
  status      = "ENABLED"
}

resource "aws_securityhub_account" "this" {
  for_each = local.created.security_hub

  enable_default_standards = false
  auto_enable_controls     = true
}

resource "aws_securityhub_standards_subscription" "foundational" {
  for_each = local.created.security_hub

  standards_arn = "arn:${var.context.partition}:securityhub:${var.context.region}::standards/aws-foundational-security-best-practices/v/1.0.0"

  # A standard can only be subscribed to once the hub is on.
  depends_on = [aws_securityhub_account.this]
}
