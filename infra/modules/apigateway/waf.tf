# The firewall in front of the stage. Rules that read bodies only count: tensors and numbers look like attacks to them,
# and the service takes no SQL, no script and no path from a body.

locals {
  managed = {
    reputation = { priority = 20, group = "AWSManagedRulesAmazonIpReputationList", counted = [] }
    inputs     = { priority = 30, group = "AWSManagedRulesKnownBadInputsRuleSet", counted = ["JavaDeserializationRCE_BODY"] }
    common = { priority = 40, group = "AWSManagedRulesCommonRuleSet", counted = [
      "SizeRestrictions_BODY", "CrossSiteScripting_BODY", "GenericLFI_BODY", "GenericRFI_BODY", "EC2MetaDataSSRF_BODY",
    ] }
  }
  # Requests of one address in five minutes; the largest tier with everything it may send, twice over.
  address_limit = max(10000, 600 * max([for tier in values(var.clients) : tier.rate_per_second]...))
}

resource "aws_wafv2_ip_set" "allowed" {
  for_each = toset(length(var.allowed_cidrs) > 0 ? ["this"] : [])

  name               = "${var.context.name}-allowed"
  description        = "Addresses that may call the API."
  scope              = "REGIONAL"
  ip_address_version = "IPV4"
  addresses          = var.allowed_cidrs
  tags               = var.tags
}

resource "aws_wafv2_web_acl" "this" {
  name        = var.context.name
  description = "In front of the stage ${var.stage_name}."
  scope       = "REGIONAL"
  tags        = var.tags

  default_action {
    allow {}
  }

  # The most that can be inspected of a body; what is beyond passes on to the service, which has its own bounds.
  association_config {
    request_body {
      api_gateway {
        default_size_inspection_limit = "KB_64"
      }
    }
  }

  dynamic "rule" {
    for_each = aws_wafv2_ip_set.allowed

    content {
      name     = "strangers"
      priority = 0

      action {
        block {}
      }

      statement {
        not_statement {
          statement {
            ip_set_reference_statement {
              arn = rule.value.arn
            }
          }
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "strangers"
        sampled_requests_enabled   = false
      }
    }
  }

  rule {
    name     = "floods"
    priority = 10

    action {
      block {
        custom_response {
          response_code = 429
        }
      }
    }

    statement {
      rate_based_statement {
        limit                 = local.address_limit
        aggregate_key_type    = "IP"
        evaluation_window_sec = 300
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "floods"
      sampled_requests_enabled   = false
    }
  }

  dynamic "rule" {
    for_each = local.managed

    content {
      name     = rule.key
      priority = rule.value.priority

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.value.group

          dynamic "rule_action_override" {
            for_each = rule.value.counted

            content {
              name = rule_action_override.value

              action_to_use {
                count {}
              }
            }
          }
        }
      }

      # Samples would hold headers, keys among them.
      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = rule.key
        sampled_requests_enabled   = false
      }
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.context.name
    sampled_requests_enabled   = false
  }
}

resource "aws_wafv2_web_acl_association" "stage" {
  resource_arn = aws_api_gateway_stage.this.arn
  web_acl_arn  = aws_wafv2_web_acl.this.arn
}

resource "aws_wafv2_web_acl_logging_configuration" "this" {
  resource_arn            = aws_wafv2_web_acl.this.arn
  log_destination_configs = [var.log_group_arns["waf"]]

  dynamic "redacted_fields" {
    for_each = ["authorization", "cookie", "x-api-key"]

    content {
      single_header {
        name = redacted_fields.value
      }
    }
  }

  # The log service refuses deliveries until the group lets them in.
  depends_on = [aws_cloudwatch_log_resource_policy.waf]
}

resource "aws_cloudwatch_log_resource_policy" "waf" {
  policy_name = "${var.context.name}-waf"
  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "WafLogs"
      Effect    = "Allow"
      Principal = { Service = "delivery.logs.amazonaws.com" }
      Action    = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource  = "arn:${var.context.partition}:logs:${var.context.region}:${var.context.account_id}:log-group:${var.log_group_names["waf"]}:*"
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.context.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${var.context.partition}:logs:${var.context.region}:${var.context.account_id}:*" }
      }
    }]
  })
}
