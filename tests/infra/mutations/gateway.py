"""Broken gateways: API-1 to API-6."""

from mutations.registry import BARE, FARGATE, FUNCTION, SERVERLESS, broken

OPENAPI = "apigateway/openapi.json"
MAIN, STAGE, CONTRACT = "apigateway/main", "apigateway/stage", "apigateway/contract"
WAF = "apigateway/waf"

MUTATIONS = (
    broken("edge endpoint", "API-1.one_regional_rest_api", FARGATE, MAIN, 'types = ["REGIONAL"]', 'types = ["EDGE"]'),
    broken(
        "merge instead of overwrite",
        "API-1.one_regional_rest_api",
        FARGATE,
        MAIN,
        'put_rest_api_mode            = "overwrite"',
        'put_rest_api_mode            = "merge"',
    ),
    broken("no proxy path", "API-1.predict_routes_reach_the_service", FARGATE, OPENAPI, '"/{proxy+}"', '"/{rest}"'),
    broken(
        "no integration target",
        "API-1.private_integration_to_the_load_balancer",
        FARGATE,
        CONTRACT,
        "    integrationTarget   = local.marks.target\n",
        "",
    ),
    broken(
        "integration over the internet",
        "API-1.private_integration_to_the_load_balancer",
        FARGATE,
        CONTRACT,
        '"VPC_LINK"',
        '"INTERNET"',
    ),
    broken(
        "a body of its own",
        "API-1.gateway_gets_the_checked_document",
        FARGATE,
        MAIN,
        "body                         = local.body",
        "body                         = jsonencode(local.document)",
    ),
    broken(
        "latest instead of the alias",
        "API-1.integration_invokes_the_alias",
        FUNCTION,
        CONTRACT,
        "function:${var.function.name}:${var.function.alias}",
        "function:${var.function.name}",
    ),
    broken(
        "deployment that never follows",
        "API-1.deployment_follows_the_document",
        FARGATE,
        MAIN,
        "create_before_destroy = true",
        "create_before_destroy = false",
    ),
    broken(
        "no validator",
        "API-2.json_is_described_and_validated",
        FARGATE,
        CONTRACT,
        "x-amazon-apigateway-request-validators =",
        "x-nothing =",
    ),
    broken(
        "error in a shape of its own",
        "API-2.gateway_errors_have_our_shape",
        FARGATE,
        MAIN,
        '\\"code\\": \\"${each.value.code}\\", ',
        "",
    ),
    broken(
        "tensors as text",
        "API-3.batches_and_tensors_pass_unchanged",
        FARGATE,
        MAIN,
        'binary_media_types = ["*/*"]',
        'binary_media_types = ["application/octet-stream"]',
    ),
    broken(
        "large bodies blocked", "API-3.firewall_lets_batches_through", FARGATE, WAF, '"SizeRestrictions_BODY", ', ""
    ),
    broken(
        "open gateway",
        "API-4.every_operation_needs_a_key",
        FARGATE,
        OPENAPI,
        '"type": "apiKey"',
        '"type": "http"',
    ),
    broken(
        "key from the address",
        "API-4.every_operation_needs_a_key",
        FARGATE,
        MAIN,
        'api_key_source               = "HEADER"',
        'api_key_source               = "AUTHORIZER"',
    ),
    broken(
        "plans without a stage",
        "API-4.plans_are_bound_to_the_stage",
        FARGATE,
        STAGE,
        "  api_stages {\n"
        "    api_id = aws_api_gateway_rest_api.this.id\n"
        "    stage  = aws_api_gateway_stage.this.stage_name\n"
        "  }\n",
        "",
    ),
    broken(
        "plan as narrow as the limit",
        "API-5.plans_are_a_shield",
        FARGATE,
        STAGE,
        "rate_limit  = each.value.rate_per_second * 12 / 10",
        "rate_limit  = each.value.rate_per_second * 1",
    ),
    broken(
        "stage without a rate",
        "API-5.stage_is_throttled",
        FARGATE,
        STAGE,
        "    throttling_rate_limit  = local.stage_rate\n",
        "",
    ),
    broken(
        "cached predictions",
        "API-5.stage_is_throttled",
        FARGATE,
        STAGE,
        "caching_enabled        = false",
        "caching_enabled        = true",
    ),
    broken(
        "no shared counter",
        "API-5.limits_are_counted_in_one_place",
        BARE,
        "database/cache",
        'resource "aws_elasticache_replication_group" "this" {\n  for_each = var.valkey == "node"',
        'resource "aws_elasticache_replication_group" "this" {\n  for_each = var.valkey == "other"',
    ),
    broken(
        "counter in the clear",
        "API-5.counter_is_valkey",
        BARE,
        "database/cache",
        'transit_encryption_enabled = true\n  transit_encryption_mode    = "required"',
        "transit_encryption_enabled = false",
    ),
    broken(
        "serverless counter of another kind",
        "API-5.counter_is_valkey",
        SERVERLESS,
        "database/cache",
        'engine               = "valkey"',
        'engine               = "redis"',
    ),
    broken(
        "slow answers unseen",
        "API-6.slow_answers_alarm",
        FARGATE,
        "cloudwatch/alarms",
        'stat = "p95", compare',
        'stat = "p50", compare',
    ),
    broken(
        "function outlives the gateway",
        "API-6.integrations_time_out",
        FUNCTION,
        "lambda/main",
        "timeout                        = 28",
        "timeout                        = 60",
    ),
)
