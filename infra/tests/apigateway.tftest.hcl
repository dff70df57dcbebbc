# Promise: nothing but health is answered without a key, nothing is decoded, cached or logged that is a prediction.
# Identifiers that AWS would give: some promises are about them.
mock_provider "aws" {
  override_resource {
    target          = aws_api_gateway_rest_api.this
    override_during = plan
    values = {
      id            = "api1"
      execution_arn = "arn:aws:execute-api:eu-central-1:123456789012:api1"
    }
  }
  override_resource {
    target          = aws_apigatewayv2_vpc_link.this["this"]
    override_during = plan
    values = {
      id = "link1"
    }
  }
  override_resource {
    target          = aws_api_gateway_stage.this
    override_during = plan
    values = {
      arn = "arn:aws:apigateway:eu-central-1::/restapis/api1/stages/live"
    }
  }
  override_resource {
    target          = aws_wafv2_web_acl.this
    override_during = plan
    values = {
      arn = "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/modelyard-test/1"
    }
  }
  override_resource {
    target          = aws_wafv2_ip_set.allowed["this"]
    override_during = plan
    values = {
      arn = "arn:aws:wafv2:eu-central-1:123456789012:regional/ipset/modelyard-test-allowed/1"
    }
  }
}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags                = { Project = "modelyard", Module = "apigateway" }
  api_name            = "modelyard-test"
  stage_name          = "live"
  key_sync_name       = "modelyard-test-key-sync"
  target              = "load-balancer"
  load_balancer       = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/modelyard-test/1", host = "origin.api.example.com", port = 443, protocol = "https" }
  function            = { name = "modelyard-test-service", alias = "live" }
  alias_arn           = ""
  clients             = { standard = { rate_per_second = 50, burst = 100 }, premium = { rate_per_second = 200, burst = 400, monthly_quota = 1000000 } }
  domain              = null
  certificate_arn     = null
  allowed_cidrs       = []
  api_gateway_logging = "create"
  subnet_ids          = ["subnet-1", "subnet-2"]
  security_group_id   = "sg-link"
  role_arns           = { gateway_logging = "arn:aws:iam::123456789012:role/modelyard-test-gateway-logging", key_sync = "arn:aws:iam::123456789012:role/modelyard-test-key-sync" }
  key_arns            = { logs = "arn:aws:kms:eu-central-1:123456789012:key/l", secrets = "arn:aws:kms:eu-central-1:123456789012:key/s" }
  log_group_names     = { gateway = "/modelyard/test/gateway", waf = "aws-waf-logs-modelyard-test", key_sync = "/aws/lambda/modelyard-test-key-sync" }
  log_group_arns      = { gateway = "arn:aws:logs:eu-central-1:123456789012:log-group:/modelyard/test/gateway", waf = "arn:aws:logs:eu-central-1:123456789012:log-group:aws-waf-logs-modelyard-test" }
  log_retention_days  = 90
}

run "every_route_but_health_needs_a_key" {
  command = plan
  module {
    source = "./modules/apigateway"
  }

  assert {
    condition = alltrue(flatten([for path, item in jsondecode(aws_api_gateway_rest_api.this.body).paths : [
      for method, operation in item : jsonencode(operation.security) == (startswith(path, "/v2/health/") ? "[]" : "[{\"api_key\":[]}]") if method != "parameters"
    ]]))
    error_message = "The key is required everywhere but on the two health routes."
  }
  assert {
    condition     = jsondecode(aws_api_gateway_rest_api.this.body).components.securitySchemes.api_key == { type = "apiKey", name = "x-api-key", in = "header" } && aws_api_gateway_rest_api.this.api_key_source == "HEADER"
    error_message = "In the header x-api-key."
  }
  assert {
    condition     = substr(jsondecode(aws_api_gateway_rest_api.this.body).openapi, 0, 3) == "3.0" && contains(keys(jsondecode(aws_api_gateway_rest_api.this.body).paths), "/{proxy+}")
    error_message = "API Gateway imports OpenAPI 3.0; everything else passes through {proxy+}."
  }
}

run "straight_to_the_load_balancer" {
  command = plan
  module {
    source = "./modules/apigateway"
  }

  assert {
    condition = alltrue(flatten([for path, item in jsondecode(aws_api_gateway_rest_api.this.body).paths : [
      for method, operation in item : [
        operation.x-amazon-apigateway-integration.type == "http_proxy",
        operation.x-amazon-apigateway-integration.connectionType == "VPC_LINK",
        operation.x-amazon-apigateway-integration.connectionId == aws_apigatewayv2_vpc_link.this["this"].id,
        operation.x-amazon-apigateway-integration.integrationTarget == var.load_balancer.arn,
        startswith(operation.x-amazon-apigateway-integration.uri, "https://origin.api.example.com:443/"),
        operation.x-amazon-apigateway-integration.timeoutInMillis <= 29000,
      ]
    ]]))
    error_message = "Every route goes by the VPC link to the internal load balancer, over TLS."
  }
  assert {
    condition     = jsondecode(aws_api_gateway_rest_api.this.body).paths["/v2/models/{model_name}/infer"].post.x-amazon-apigateway-integration.requestParameters == { "integration.request.path.model_name" = "method.request.path.model_name" }
    error_message = "Path parameters are handed on."
  }
  assert {
    condition     = jsondecode(aws_api_gateway_rest_api.this.body).paths["/{proxy+}"].x-amazon-apigateway-any-method.x-amazon-apigateway-integration.uri == "https://origin.api.example.com:443/{proxy}"
    error_message = "The rest of the path is handed on."
  }
  assert {
    condition     = replace(replace(replace(terraform_data.contract.input, "{{vpc-link-id}}", aws_apigatewayv2_vpc_link.this["this"].id), "{{load-balancer-arn}}", var.load_balancer.arn), "{{load-balancer-host}}", var.load_balancer.host) == aws_api_gateway_rest_api.this.body
    error_message = "What a plan shows is what the gateway gets."
  }
}

run "nothing_is_decoded_cached_or_logged" {
  command = plan
  module {
    source = "./modules/apigateway"
  }

  assert {
    condition     = aws_api_gateway_rest_api.this.binary_media_types == tolist(["*/*"]) && aws_api_gateway_rest_api.this.put_rest_api_mode == "overwrite" && aws_api_gateway_rest_api.this.fail_on_warnings
    error_message = "Bytes pass as they came; a document with warnings is refused."
  }
  assert {
    condition     = !aws_api_gateway_method_settings.all.settings[0].data_trace_enabled && !aws_api_gateway_method_settings.all.settings[0].caching_enabled && aws_api_gateway_method_settings.all.settings[0].logging_level == "ERROR"
    error_message = "Bodies are never traced, predictions never cached."
  }
  assert {
    condition     = !strcontains(aws_api_gateway_stage.this.access_log_settings[0].format, "identity.apiKey\"") && strcontains(aws_api_gateway_stage.this.access_log_settings[0].format, "$context.identity.apiKeyId") && aws_api_gateway_stage.this.xray_tracing_enabled
    error_message = "The access log names a key without telling it."
  }
  assert {
    condition     = aws_cloudwatch_log_group.execution.kms_key_id == var.key_arns["logs"] && aws_cloudwatch_log_group.execution.retention_in_days == 90
    error_message = "The gateway's own log is encrypted and ends."
  }
  assert {
    condition     = contains(keys(aws_api_gateway_deployment.this.triggers), "contract") && contains(keys(aws_api_gateway_deployment.this.triggers), "answers")
    error_message = "Whatever shapes an answer makes a new deployment."
  }
}

run "limits_and_answers" {
  command = plan
  module {
    source = "./modules/apigateway"
  }

  assert {
    condition     = aws_api_gateway_usage_plan.this["standard"].throttle_settings[0].rate_limit == 60 && aws_api_gateway_usage_plan.this["standard"].throttle_settings[0].burst_limit == 120 && length(aws_api_gateway_usage_plan.this["standard"].quota_settings) == 0
    error_message = "The shield stands at 1.2 times the exact limit."
  }
  assert {
    condition     = aws_api_gateway_usage_plan.this["premium"].quota_settings[0].limit == 1200000 && alltrue([for p in aws_api_gateway_usage_plan.this : one(p.api_stages).stage == "live"])
    error_message = "Quotas too, and every plan is bound to the stage."
  }
  assert {
    condition     = aws_api_gateway_method_settings.all.settings[0].throttling_rate_limit == 1000
    error_message = "All clients together are bounded."
  }
  assert {
    condition     = alltrue([for r in aws_api_gateway_gateway_response.this : toset(keys(jsondecode(r.response_templates["application/json"]))) == toset(["error", "code", "detail", "request_id"])]) && aws_api_gateway_gateway_response.this["INVALID_API_KEY"].status_code == "401" && aws_api_gateway_gateway_response.this["THROTTLED"].response_parameters["gatewayresponse.header.Retry-After"] == "'1'"
    error_message = "The gateway's refusals have the service's shape."
  }
}

run "the_firewall_stands_in_front" {
  command = plan
  module {
    source = "./modules/apigateway"
  }
  variables {
    allowed_cidrs = ["203.0.113.0/24"]
  }

  assert {
    condition     = aws_wafv2_web_acl_association.stage.resource_arn == aws_api_gateway_stage.this.arn && toset([for r in aws_wafv2_web_acl.this.rule : r.name]) == toset(["strangers", "floods", "reputation", "inputs", "common"])
    error_message = "Floods, bad addresses, bad inputs, and strangers where addresses are named."
  }
  assert {
    condition     = contains(flatten([for r in aws_wafv2_web_acl.this.rule : [for o in try(r.statement[0].managed_rule_group_statement[0].rule_action_override, []) : o.name] if r.name == "common"]), "SizeRestrictions_BODY")
    error_message = "Large batches are only counted: the service bounds them (API-3)."
  }
  assert {
    condition     = contains([for f in aws_wafv2_web_acl_logging_configuration.this.redacted_fields : f.single_header[0].name], "x-api-key")
    error_message = "The firewall's log never holds a key."
  }
}

run "a_domain_closes_the_default_address" {
  command = plan
  module {
    source = "./modules/apigateway"
  }
  variables {
    domain          = { name = "api.example.com", zone_id = "Z0123456789ABCDEFGHIJ", tls_policy = "TLS_1_2" }
    certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/c"
  }

  assert {
    condition     = aws_api_gateway_rest_api.this.disable_execute_api_endpoint && aws_api_gateway_domain_name.this["this"].security_policy == "TLS_1_2" && output.invoke_url == "https://api.example.com"
    error_message = "TLS 1.2 at least, and one way in only."
  }
}

run "lambda_is_called_through_its_alias" {
  command = plan
  module {
    source = "./modules/apigateway"
  }
  variables {
    target    = "lambda"
    alias_arn = "arn:aws:lambda:eu-central-1:123456789012:function:modelyard-test-service:live"
  }

  assert {
    condition = alltrue(flatten([for path, item in jsondecode(aws_api_gateway_rest_api.this.body).paths : [
      for method, operation in item : operation.x-amazon-apigateway-integration.type == "aws_proxy" && endswith(operation.x-amazon-apigateway-integration.uri, ":function:modelyard-test-service:live/invocations")
    ]])) && length(aws_apigatewayv2_vpc_link.this) == 0
    error_message = "By the alias, never by $LATEST, and without a link."
  }
  assert {
    condition     = aws_lambda_permission.gateway["this"].qualifier == "live" && aws_lambda_permission.gateway["this"].source_account == var.context.account_id && endswith(aws_lambda_permission.gateway["this"].source_arn, "/live/*/*")
    error_message = "Only this API's stage may call the alias."
  }
}

run "refuses_old_tls" {
  command = plan
  module {
    source = "./modules/apigateway"
  }
  variables {
    domain = { name = "api.example.com", zone_id = "Z0123456789ABCDEFGHIJ", tls_policy = "TLS_1_0" }
  }
  expect_failures = [var.domain]
}

run "refuses_no_tiers_and_unknown_words" {
  command = plan
  module {
    source = "./modules/apigateway"
  }
  variables {
    clients             = {}
    target              = "instance"
    api_gateway_logging = "off"
  }
  expect_failures = [var.clients, var.target, var.api_gateway_logging]
}
