# The public name: TLS 1.2 at least, 1.3 where the client can (SEC-1).

locals {
  named    = toset(var.domain == null ? [] : ["this"])
  enhanced = try(startswith(var.domain.tls_policy, "SecurityPolicy_"), false)
}

resource "aws_api_gateway_domain_name" "this" {
  for_each = local.named

  domain_name              = var.domain.name
  regional_certificate_arn = var.certificate_arn
  security_policy          = var.domain.tls_policy
  endpoint_access_mode     = local.enhanced ? "STRICT" : null # AWS takes a mode with the enhanced policies only
  tags                     = var.tags

  endpoint_configuration {
    types = ["REGIONAL"]
  }
}

resource "aws_api_gateway_base_path_mapping" "this" {
  for_each = local.named

  domain_name = aws_api_gateway_domain_name.this[each.key].domain_name
  api_id      = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.this.stage_name
}

resource "aws_route53_record" "this" {
  for_each = local.named

  zone_id = var.domain.zone_id
  name    = var.domain.name
  type    = "A"

  alias {
    name                   = aws_api_gateway_domain_name.this[each.key].regional_domain_name
    zone_id                = aws_api_gateway_domain_name.this[each.key].regional_zone_id
    evaluate_target_health = false
  }
}
