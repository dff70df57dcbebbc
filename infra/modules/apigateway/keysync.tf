# Writes client keys into the gateway. It lives outside the VPC on purpose: API Gateway's control plane has no endpoint
# inside, and nothing inside may reach the internet.

resource "aws_lambda_function" "key_sync" {
  function_name    = var.key_sync_name
  description      = "Makes, deletes and lists the gateway's keys; never tells a value."
  role             = var.role_arns["key_sync"]
  runtime          = "python3.13"
  handler          = "index.handler"
  filename         = "${path.module}/functions/key_sync.zip"
  source_code_hash = filebase64sha256("${path.module}/functions/key_sync.zip")
  architectures    = ["arm64"]
  memory_size      = 256
  timeout          = 25 # whoever shows the key waits for the answer
  kms_key_arn      = var.key_arns["secrets"]
  tags             = var.tags

  tracing_config {
    mode = "PassThrough"
  }

  logging_config {
    log_format = "JSON"
    log_group  = var.log_group_names["key_sync"]
  }

  environment {
    variables = {
      PREFIX      = var.context.name
      USAGE_PLANS = jsonencode({ for tier, plan in aws_api_gateway_usage_plan.this : tier => plan.id })
    }
  }
}
