# The door: one REST API whose body is the service's own document, keys, usage plans, limits (API-1 to API-5).

locals {
  execution_log = "API-Gateway-Execution-Logs_${aws_api_gateway_rest_api.this.id}/${var.stage_name}"
  # The shield of all clients together: far above any tier, far below the account's 10,000 requests a second.
  stage_rate  = max(1000, 2 * max([for tier in values(var.clients) : tier.rate_per_second]...))
  stage_burst = max(2000, 2 * max([for tier in values(var.clients) : tier.burst]...))
}

resource "aws_api_gateway_rest_api" "this" {
  name                         = var.api_name
  description                  = "Models behind a REST API: predictions, their log, and the management of both."
  body                         = local.body
  put_rest_api_mode            = "overwrite"
  api_key_source               = "HEADER"
  fail_on_warnings             = true
  disable_execute_api_endpoint = var.domain != null
  # Everything passes as it came: a type left out here would be decoded as text and break binary tensors (API-3). The
  # service compresses, not the gateway, so no minimum_compression_size.
  binary_media_types = ["*/*"]
  tags               = var.tags

  endpoint_configuration {
    types = ["REGIONAL"]
  }

  lifecycle {
    precondition {
      condition     = var.target != "load-balancer" || contains(["http", "https"], var.load_balancer.protocol)
      error_message = "load_balancer.protocol must be \"https\", or \"http\" where the stack has no domain."
    }
  }
}

# The contract with names where AWS will put identifiers: a plan shows each changed route, and checks can read it before
# anything exists. The API's body is this text with the identifiers filled in (contract.tf).
resource "terraform_data" "contract" {
  input = local.contract
}

resource "aws_apigatewayv2_vpc_link" "this" {
  for_each = toset(var.target == "load-balancer" ? ["this"] : [])

  name               = var.api_name
  subnet_ids         = var.subnet_ids
  security_group_ids = [var.security_group_id]
  tags               = var.tags
}

# The gateway's own refusals speak like the service's.
resource "aws_api_gateway_gateway_response" "this" {
  for_each = {
    ACCESS_DENIED                = { status = "403", code = "forbidden", error = "This address or key may not call the API." }
    BAD_REQUEST_PARAMETERS       = { status = "400", code = "invalid_request", error = "A parameter that the route needs is missing." }
    INTEGRATION_FAILURE          = { status = "503", code = "unavailable", error = "The service can't be reached; try again." }
    INTEGRATION_TIMEOUT          = { status = "504", code = "timeout", error = "The service took longer than 29 s." }
    INVALID_API_KEY              = { status = "401", code = "unauthenticated", error = "The header x-api-key is missing or holds an unknown key." }
    MISSING_AUTHENTICATION_TOKEN = { status = "404", code = "not_found", error = "No such route, or not with this method." }
    QUOTA_EXCEEDED               = { status = "429", code = "quota_exceeded", error = "The month's quota of this client is used up." }
    REQUEST_TOO_LARGE            = { status = "413", code = "body_too_large", error = "A body may have 10 MB at most; send fewer items, or tensors in binary." }
    THROTTLED                    = { status = "429", code = "rate_limited", error = "Too many requests; wait and try again." }
    WAF_FILTERED                 = { status = "403", code = "blocked", error = "The firewall blocked this request." }
  }

  rest_api_id   = aws_api_gateway_rest_api.this.id
  response_type = each.key
  status_code   = each.value.status
  response_templates = {
    "application/json" = "{\"error\": ${jsonencode(each.value.error)}, \"code\": \"${each.value.code}\", \"detail\": {}, \"request_id\": \"$context.requestId\"}"
  }
  response_parameters = merge(
    { "gatewayresponse.header.x-request-id" = "context.requestId" },
    contains(["429", "503"], each.value.status) ? { "gatewayresponse.header.Retry-After" = "'1'" } : {},
    each.value.status == "401" ? { "gatewayresponse.header.WWW-Authenticate" = "'ApiKey'" } : {},
  )
}

# A deployment is a photograph: one made before a change answers the old way (without a key, say), so everything that
# shapes an answer is in the triggers.
resource "aws_api_gateway_deployment" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  triggers = {
    contract = sha256(local.contract)
    body     = sha256(aws_api_gateway_rest_api.this.body)
    endpoint = tostring(var.domain != null)
    answers  = sha256(jsonencode([for key in sort(keys(aws_api_gateway_gateway_response.this)) : [key, aws_api_gateway_gateway_response.this[key].status_code, aws_api_gateway_gateway_response.this[key].response_templates, aws_api_gateway_gateway_response.this[key].response_parameters]]))
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lambda_permission" "gateway" {
  for_each = toset(var.target == "lambda" ? ["this"] : [])

  statement_id = "gateway-${var.stage_name}"
  action       = "lambda:InvokeFunction"
  # Both from the alias's ARN (…:function:<name>:<alias>), so that this waits for the alias.
  function_name  = split(":", var.alias_arn)[6]
  qualifier      = split(":", var.alias_arn)[7]
  principal      = "apigateway.amazonaws.com"
  source_account = var.context.account_id
  source_arn     = "${aws_api_gateway_rest_api.this.execution_arn}/${var.stage_name}/*/*"
}
