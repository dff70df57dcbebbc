locals {
  engine_version = { postgres = "17", mysql = "8.4" }
  family         = { postgres = "postgres17", mysql = "mysql8.4" }
  log_exports    = { postgres = ["postgresql", "upgrade"], mysql = ["error", "slowquery"] }
  parameters = {
    postgres = {
      "rds.force_ssl"              = { value = "1", method = "immediate" }
      "log_statement"              = { value = "ddl", method = "immediate" }
      "log_min_duration_statement" = { value = "500", method = "immediate" }
      "log_connections"            = { value = "1", method = "immediate" }
    }
    mysql = {
      "require_secure_transport" = { value = "1", method = "immediate" }
      "slow_query_log"           = { value = "1", method = "immediate" }
      "long_query_time"          = { value = "0.5", method = "immediate" }
    }
  }
}

resource "aws_db_subnet_group" "this" {
  for_each = local.rds

  name        = var.names.database
  description = "Data subnets: no route to the internet"
  subnet_ids  = var.subnet_ids
  tags        = var.tags
}

resource "aws_db_parameter_group" "this" {
  for_each = local.rds

  # A prefix, so that a new family can be made before the old one goes.
  name_prefix = "${var.names.database}-"
  description = "TLS only, slow statements logged"
  family      = local.family[var.engine]
  tags        = var.tags

  dynamic "parameter" {
    for_each = local.parameters[var.engine]

    content {
      name         = parameter.key
      value        = parameter.value.value
      apply_method = parameter.value.method
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

# The last snapshot's name must be new each time the database is: this identifier lives as long as the database does.
resource "terraform_data" "generation" {
  for_each = local.rds
}

resource "aws_db_instance" "this" {
  for_each = local.rds

  identifier     = var.names.database
  engine         = var.engine
  engine_version = local.engine_version[var.engine]
  instance_class = local.instance_class
  db_name        = "modelyard"
  port           = local.port

  # The master login is for setting up the service's own user, once; RDS keeps and rotates its password.
  username                            = "modelyard_master"
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = var.key_arns["secrets"]
  iam_database_authentication_enabled = true

  storage_type          = "gp3"
  allocated_storage     = var.sizing.storage_gb
  max_allocated_storage = var.sizing.max_storage_gb
  storage_encrypted     = true
  kms_key_id            = var.key_arns["database"]

  multi_az               = var.high_availability
  publicly_accessible    = false
  db_subnet_group_name   = aws_db_subnet_group.this[each.key].name
  vpc_security_group_ids = [var.security_group_ids["database"]]
  parameter_group_name   = aws_db_parameter_group.this[each.key].name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period   = 35
  backup_window             = "02:00-03:00"
  maintenance_window        = "sun:03:30-sun:04:30"
  copy_tags_to_snapshot     = true
  delete_automated_backups  = !var.deletion_protection
  deletion_protection       = var.deletion_protection
  skip_final_snapshot       = !var.deletion_protection
  final_snapshot_identifier = "${var.names.database}-final-${substr(terraform_data.generation[each.key].id, 0, 8)}"

  auto_minor_version_upgrade  = true
  allow_major_version_upgrade = false
  apply_immediately           = false

  # Naming the groups (rather than letting RDS make them) gives them our key and our retention.
  enabled_cloudwatch_logs_exports       = [for kind in local.log_exports[var.engine] : kind if contains(keys(var.log_group_names), "database_${kind}")]
  monitoring_interval                   = 60
  monitoring_role_arn                   = var.role_arns["rds_monitoring"]
  performance_insights_enabled          = true
  performance_insights_kms_key_id       = var.key_arns["database"]
  performance_insights_retention_period = var.sizing.insights_mode == "advanced" ? 465 : 7
  database_insights_mode                = var.sizing.insights_mode

  tags = merge(var.tags, { RetentionDays = tostring(var.retention_days) })

  lifecycle {
    # Minor versions are raised by RDS itself.
    ignore_changes = [engine_version]
  }
}
