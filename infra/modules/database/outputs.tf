output "database_url" {
  description = "How the service signs in: iam://user@host:port/name, or dynamodb://prefix."
  value       = local.database_url
}

output "limits_url" {
  description = "Where limits are counted: rediss://… or dynamodb://table."
  value       = local.limits_url
}

output "login_resource_id" {
  description = "RDS resource id, or the proxy's, that rds-db:connect is narrowed to; null with DynamoDB."
  value       = local.login_resource_id
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
