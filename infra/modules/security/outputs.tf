output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "Subnets of the service, one a zone."
  value       = [for s in aws_subnet.private : s.id]
}

output "data_subnet_ids" {
  description = "Subnets of database and cache, one a zone; no route to the internet."
  value       = [for s in aws_subnet.data : s.id]
}

output "security_group_ids" {
  description = "Group by purpose: link, load_balancer, service, instance, function, hook, database, proxy, cache, endpoints."
  value       = { for k, g in aws_security_group.this : k => g.id }
}

output "key_arns" {
  description = "Customer-managed key by purpose: artifacts, database, logs, trail, secrets, volumes."
  value       = { for k, v in aws_kms_key.this : k => v.arn }
  # Roles are allowed by alias (names before ARNs), so who uses a key must find its alias in place.
  depends_on = [aws_kms_alias.this]
}

output "admin_secret_arn" {
  description = "Empty secret for the first administrator's key."
  value       = aws_secretsmanager_secret.admin_key.arn
}

output "certificate_arn" {
  description = "Validated certificate of the domain and of origin.<domain>; null without a domain."
  value       = try(aws_acm_certificate_validation.this["domain"].certificate_arn, null)
}

output "flow_log_id" {
  description = "Flow log of the network."
  value       = aws_flow_log.this.id
}

output "endpoint_ids" {
  description = "VPC endpoint by service."
  value       = merge({ for k, e in aws_vpc_endpoint.gateway : k => e.id }, { for k, e in aws_vpc_endpoint.interface : k => e.id })
}
