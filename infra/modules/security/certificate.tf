# One public certificate for the gateway's name and for origin.<name>, the name the gateway expects of the load balancer.

locals {
  domain = var.domain == null ? {} : { domain = var.domain }
  certificate_names = var.domain == null ? {} : {
    public = var.domain.name
    origin = "origin.${var.domain.name}"
  }
}

resource "aws_acm_certificate" "this" {
  for_each = local.domain

  domain_name               = local.certificate_names.public
  subject_alternative_names = [local.certificate_names.origin]
  validation_method         = "DNS"
  tags                      = var.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = local.certificate_names

  zone_id         = var.domain.zone_id
  name            = one([for o in aws_acm_certificate.this["domain"].domain_validation_options : o.resource_record_name if o.domain_name == each.value])
  type            = one([for o in aws_acm_certificate.this["domain"].domain_validation_options : o.resource_record_type if o.domain_name == each.value])
  records         = [one([for o in aws_acm_certificate.this["domain"].domain_validation_options : o.resource_record_value if o.domain_name == each.value])]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  for_each = local.domain

  certificate_arn         = aws_acm_certificate.this[each.key].arn
  validation_record_fqdns = [for r in aws_route53_record.validation : r.fqdn]
}
