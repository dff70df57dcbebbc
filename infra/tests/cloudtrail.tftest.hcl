# Promise: whoever changes something is recorded where it can't be rewritten, and heard of.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags               = { Project = "modelyard", Module = "cloudtrail" }
  trail_name         = "modelyard-test-trail"
  audit_bucket       = "modelyard-test-audit"
  data_event_buckets = { artifacts = "arn:aws:s3:::modelyard-test-artifacts", audit = "arn:aws:s3:::modelyard-test-audit", logs = "arn:aws:s3:::modelyard-test-logs" }
  key_arn            = "arn:aws:kms:eu-central-1:123456789012:key/t"
  role_arns          = { trail = "arn:aws:iam::123456789012:role/modelyard-test-trail", config = "arn:aws:iam::123456789012:role/modelyard-test-config" }
  log_group_name     = "/modelyard/test/trail"
  log_group_arn      = "arn:aws:logs:eu-central-1:123456789012:log-group:/modelyard/test/trail"
  topic_arn          = "arn:aws:sns:eu-central-1:123456789012:modelyard-test-alerts"
  undelivered_arn    = "arn:aws:sqs:eu-central-1:123456789012:modelyard-test-undelivered"
  cluster_name       = "modelyard-test"
  guardduty          = "create"
  config             = "create"
  security_hub       = "off"
}

run "the_trail_sees_everything" {
  command = plan
  module {
    source = "./modules/cloudtrail"
  }

  assert {
    condition     = aws_cloudtrail.this.is_multi_region_trail && aws_cloudtrail.this.include_global_service_events && aws_cloudtrail.this.enable_logging && aws_cloudtrail.this.enable_log_file_validation
    error_message = "All regions, global services, on, and validated."
  }
  assert {
    condition     = aws_cloudtrail.this.kms_key_id == var.key_arn && endswith(aws_cloudtrail.this.cloud_watch_logs_group_arn, ":*")
    error_message = "Encrypted with the trail's key, and in the log group (AWS wants its ARN with :*)."
  }
  assert {
    condition     = contains(flatten([for s in aws_cloudtrail.this.advanced_event_selector : [for f in s.field_selector : coalescelist(f.starts_with, ["-"])]]), "arn:aws:s3:::modelyard-test-artifacts/")
    error_message = "Reads and writes of artifacts are data events."
  }
}

run "changes_raise_alarms" {
  command = plan
  module {
    source = "./modules/cloudtrail"
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.change) >= 15 && keys(aws_cloudwatch_metric_alarm.change) == keys(aws_cloudwatch_log_metric_filter.change)
    error_message = "Every filter has its alarm."
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.change : a.alarm_actions == toset([var.topic_arn]) && a.treat_missing_data == "notBreaching"])
    error_message = "Every change alarm reaches the topic."
  }
  assert {
    condition     = alltrue([for f in aws_cloudwatch_log_metric_filter.change : length(f.pattern) <= 1024])
    error_message = "CloudWatch takes patterns of at most 1,024 characters."
  }
  assert {
    condition     = alltrue([for t in aws_cloudwatch_event_target.topic : t.dead_letter_config[0].arn == var.undelivered_arn])
    error_message = "An event that can't be delivered is kept."
  }
}

run "detection_is_on" {
  command = plan
  module {
    source = "./modules/cloudtrail"
  }

  assert {
    condition     = aws_guardduty_detector.this["this"].enable && length(aws_guardduty_detector_feature.this) == 3 && aws_config_configuration_recorder_status.this["this"].is_enabled
    error_message = "GuardDuty and Config run."
  }
  assert {
    condition     = contains(aws_config_configuration_recorder.this["this"].recording_group[0].exclusion_by_resource_types[0].resource_types, "AWS::EC2::NetworkInterface")
    error_message = "Every task makes a network interface; recording each one only costs."
  }
}

run "another_stacks_services_are_left_alone" {
  command = plan
  module {
    source = "./modules/cloudtrail"
  }
  variables {
    guardduty = "exists"
    config    = "off"
  }

  assert {
    condition     = length(aws_guardduty_detector.this) + length(aws_config_configuration_recorder.this) + length(aws_securityhub_account.this) == 0
    error_message = "exists and off make nothing."
  }
  assert {
    condition     = contains(keys(aws_cloudwatch_event_rule.this), "finding")
    error_message = "Findings of an existing detector are heard too."
  }
}

run "security_hub_on_wish" {
  command = plan
  module {
    source = "./modules/cloudtrail"
  }
  variables {
    security_hub = "create"
  }

  assert {
    condition     = length(aws_securityhub_standards_subscription.foundational) == 1
    error_message = "The hub comes with the foundational standard."
  }
}

run "refuses_an_unknown_switch" {
  command = plan
  module {
    source = "./modules/cloudtrail"
  }
  variables {
    guardduty    = "yes"
    config       = "yes"
    security_hub = "yes"
  }
  expect_failures = [var.guardduty, var.config, var.security_hub]
}
