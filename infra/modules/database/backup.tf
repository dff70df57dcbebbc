# OPS-4: besides the store's own point-in-time recovery, a daily copy in a vault of its own that (with a lock) nobody
# empties early, and once a month a restore that proves the copies are worth something.

locals {
  stores = local.relational ? [
    "${local.arn}:rds:${local.own}:db:${var.names.database}",
    ] : [
    for table in ["metadata", "predictions"] : "${local.arn}:dynamodb:${local.own}:table/${var.names.tables_prefix}-${table}"
  ]
}

resource "aws_backup_vault" "this" {
  name        = var.names.backup_vault
  kms_key_arn = var.key_arns["database"]
  # A vault that holds recovery points refuses to go unless that was asked for: copies should outlive a mistaken destroy.
  force_destroy = var.backup.destroy_with_stack
  tags          = var.tags
}

resource "aws_backup_vault_lock_configuration" "this" {
  for_each = var.backup.vault_lock == "off" ? {} : { (var.backup.vault_lock) = aws_backup_vault.this.name }

  backup_vault_name  = each.value
  min_retention_days = min(7, var.backup.keep_days)
  max_retention_days = var.backup.keep_days
  # With a day to think it over the lock becomes irreversible; without one an administrator may lift it.
  changeable_for_days = each.key == "compliance" ? 3 : null
}

resource "aws_backup_plan" "this" {
  name = local.name
  tags = var.tags

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.this.name
    schedule          = "cron(0 4 * * ? *)"
    start_window      = 60
    completion_window = 360

    lifecycle {
      delete_after = var.backup.keep_days
    }
  }
}

resource "aws_backup_selection" "this" {
  name         = local.name
  plan_id      = aws_backup_plan.this.id
  iam_role_arn = var.role_arns["backup"]
  resources    = local.stores
}

resource "aws_backup_restore_testing_plan" "this" {
  for_each = var.backup.restore_test ? { monthly = "cron(0 5 1 * ? *)" } : {}

  name                = replace("${local.name}_${each.key}", "-", "_")
  schedule_expression = each.value
  start_window_hours  = 2
  tags                = var.tags

  recovery_point_selection {
    algorithm             = "LATEST_WITHIN_WINDOW"
    include_vaults        = [aws_backup_vault.this.arn]
    recovery_point_types  = ["SNAPSHOT"]
    selection_window_days = 7
  }
}

resource "aws_backup_restore_testing_selection" "this" {
  for_each = aws_backup_restore_testing_plan.this

  name                      = "store"
  restore_testing_plan_name = each.value.name
  protected_resource_type   = local.relational ? "RDS" : "DynamoDB"
  iam_role_arn              = var.role_arns["backup"]
  protected_resource_arns   = local.stores
  validation_window_hours   = 1

  # The restored copy lands in the data subnets, not in the account's default network.
  restore_metadata_overrides = local.relational ? { dbSubnetGroupName = aws_db_subnet_group.this["relational"].name } : {}
}
