# The hook that ECS asks before production traffic moves: it calls green through the test listener, from inside the VPC.

resource "aws_lambda_function" "deploy_hook" {
  function_name    = var.hook_name
  description      = "Asks green for readiness and for a refusal without a key before a release goes on."
  role             = var.role_arns["deploy_hook"]
  runtime          = "python3.13"
  handler          = "index.handler"
  filename         = "${path.module}/functions/deploy_hook.zip"
  source_code_hash = filebase64sha256("${path.module}/functions/deploy_hook.zip")
  architectures    = ["arm64"]
  memory_size      = 256
  timeout          = 300
  kms_key_arn      = var.key_arns["secrets"]
  tags             = var.tags

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [var.security_group_ids["hook"]]
  }

  # No endpoint for X-Ray in the VPC: the trace header is passed on, nothing is sampled here.
  tracing_config {
    mode = "PassThrough"
  }

  logging_config {
    log_format = "JSON"
    log_group  = var.log_group_names["hook"]
  }

  environment {
    variables = {
      TEST_HOST = aws_lb.this.dns_name
      TEST_PORT = tostring(local.ports["test"])
      SCHEME    = local.tls ? "https" : "http"
      TLS_NAME  = local.tls ? "origin.${var.domain_name}" : ""
    }
  }
}
