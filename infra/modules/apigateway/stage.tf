# The stage that clients reach: its logs, its limits, and the plans of the tiers (API-4, API-5).

resource "aws_api_gateway_account" "this" {
  for_each = toset(var.api_gateway_logging == "create" ? ["this"] : [])

  cloudwatch_role_arn = var.role_arns["gateway_logging"]
}

# API Gateway would make this group itself, without key and without end; here it is made first.
resource "aws_cloudwatch_log_group" "execution" {
  name              = local.execution_log
  kms_key_id        = var.key_arns["logs"]
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_api_gateway_stage" "this" {
  rest_api_id           = aws_api_gateway_rest_api.this.id
  deployment_id         = aws_api_gateway_deployment.this.id
  stage_name            = var.stage_name
  description           = "What clients reach."
  cache_cluster_enabled = false # a cached prediction would miss the log and outlive a release
  xray_tracing_enabled  = true
  tags                  = var.tags

  access_log_settings {
    destination_arn = var.log_group_arns["gateway"]
    # No key and no body: identity.apiKeyId names a key without telling it.
    format = jsonencode({
      requestId          = "$context.requestId"
      extendedRequestId  = "$context.extendedRequestId"
      time               = "$context.requestTimeEpoch"
      ip                 = "$context.identity.sourceIp"
      apiKeyId           = "$context.identity.apiKeyId"
      method             = "$context.httpMethod"
      path               = "$context.path"
      resource           = "$context.resourcePath"
      status             = "$context.status"
      responseLength     = "$context.responseLength"
      responseLatency    = "$context.responseLatency"
      integrationLatency = "$context.integrationLatency"
      integrationStatus  = "$context.integrationStatus"
      error              = "$context.error.responseType"
      wafStatus          = "$context.waf.status"
      tlsVersion         = "$context.tlsVersion"
      xrayTraceId        = "$context.xrayTraceId"
    })
  }

  # Logging fails until the account has its role, and the log group must not be made by the gateway.
  depends_on = [aws_api_gateway_account.this, aws_cloudwatch_log_group.execution]
}

resource "aws_api_gateway_method_settings" "all" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.this.stage_name
  method_path = "*/*"

  settings {
    metrics_enabled        = true
    logging_level          = "ERROR"
    data_trace_enabled     = false # bodies are predictions: they belong in the prediction log, redacted, and nowhere else
    caching_enabled        = false
    throttling_rate_limit  = local.stage_rate
    throttling_burst_limit = local.stage_burst
  }
}

# Tiers, not clients: an account may have 300 plans. AWS calls their limits best effort, so they stand at 1.2 times the
# exact limit, which the service keeps; the key itself is written by the key synchronisation.
resource "aws_api_gateway_usage_plan" "this" {
  for_each = var.clients

  name        = "${var.context.name}-${each.key}"
  description = "Shield of tier ${each.key}: exact limit ${each.value.rate_per_second} requests a second, kept by the service."
  tags        = var.tags

  api_stages {
    api_id = aws_api_gateway_rest_api.this.id
    stage  = aws_api_gateway_stage.this.stage_name
  }

  throttle_settings {
    rate_limit  = each.value.rate_per_second * 12 / 10 # exact in decimals: 1.2 times 100 would be rounded up to 121
    burst_limit = ceil(each.value.burst * 12 / 10)
  }

  dynamic "quota_settings" {
    for_each = each.value.monthly_quota == null ? [] : [each.value.monthly_quota]

    content {
      limit  = ceil(quota_settings.value * 12 / 10)
      period = "MONTH"
    }
  }
}
