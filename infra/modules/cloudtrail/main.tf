# Who changed what: one trail over all regions, validated and encrypted, into a bucket that keeps it (SEC-4, SEC-5).

locals {
  # Reads and writes of artifacts and of the audit bucket itself; Lambda invocations and log writes would only cost.
  recorded_buckets = [for purpose in ["artifacts", "audit"] : "${var.data_event_buckets[purpose]}/"]
}

resource "aws_cloudtrail" "this" {
  name                          = var.trail_name
  s3_bucket_name                = var.audit_bucket
  s3_key_prefix                 = "trail"
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_logging                = true
  enable_log_file_validation    = true
  kms_key_id                    = var.key_arn
  cloud_watch_logs_group_arn    = "${var.log_group_arn}:*"
  cloud_watch_logs_role_arn     = var.role_arns["trail"]
  tags                          = var.tags

  advanced_event_selector {
    name = "Changes, and who read what by the control plane"

    field_selector {
      field  = "eventCategory"
      equals = ["Management"]
    }
  }

  advanced_event_selector {
    name = "Artifacts and audit records, object by object"

    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }
    field_selector {
      field  = "resources.type"
      equals = ["AWS::S3::Object"]
    }
    field_selector {
      field       = "resources.ARN"
      starts_with = local.recorded_buckets
    }
  }

  insight_selector {
    insight_type = "ApiErrorRateInsight"
  }
  insight_selector {
    insight_type = "ApiCallRateInsight"
  }
}
