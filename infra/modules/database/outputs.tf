output "database_url" {
  description = "How the service signs in: iam://user@host:port/name, or dynamodb://prefix."
  value       = local.database_url
}

output "limits_url" {
  description = "Where limits are counted: iam://user@host:port/cache, rediss://… or dynamodb://table."
  value       = local.limits_url
}

output "login_resource_id" {
  description = "RDS resource id, or the proxy's, that rds-db:connect is narrowed to; null with DynamoDB."
  value       = local.relational ? (var.proxied ? element(split(":", aws_db_proxy.this["relational"].arn), 6) : aws_db_instance.this["relational"].resource_id) : null
}

output "instance_class" {
  description = "RDS class; null with DynamoDB."
  value       = local.relational ? local.instance_class : null
}

output "table_names" {
  description = "DynamoDB tables by purpose."
  value       = { for k, t in aws_dynamodb_table.this : k => t.name }
}

output "cache_member_ids" {
  description = "Valkey nodes by number, for alarms; empty unless valkey is node."
  value       = local.cache_member_ids
}

output "master_secret_arn" {
  description = "Managed master secret of RDS; null with DynamoDB."
  value       = try(aws_db_instance.this["relational"].master_user_secret[0].secret_arn, null)
}

output "backup_vault_arn" {
  description = "Vault of the recovery points."
  value       = aws_backup_vault.this.arn
}

output "database_resource_id" {
  description = "RDS resource id of the instance itself; null with DynamoDB."
  value       = local.relational ? aws_db_instance.this["relational"].resource_id : null
}

output "proxy_secret_arn" {
  description = "Empty secret for the proxy's login; null unless proxy_login is secret."
  value       = try(aws_secretsmanager_secret.database_login["relational"].arn, null)
}
