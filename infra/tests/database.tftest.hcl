# Promise: one private, encrypted, recoverable store, whichever it is.
mock_provider "aws" {
  mock_resource "aws_db_proxy" {
    defaults = { arn = "arn:aws:rds:eu-central-1:123456789012:db-proxy:prx-ABC" }
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
  tags   = { Project = "modelyard" }
  engine = "postgres"
  names = {
    database = "modelyard-test", database_user = "modelyard", proxy = "modelyard-test-proxy", proxy_secret = "modelyard-test/database-login",
    cache    = "modelyard-test-limits", backup_vault = "modelyard-test-backup", tables_prefix = "modelyard-test", counters_table = "modelyard-test-counters",
  }
  valkey              = "node"
  valkey_access       = "iam"
  proxied             = false
  proxy_login         = "iam"
  backup              = { vault_lock = "governance", keep_days = 35, restore_test = true }
  retention_days      = 90
  high_availability   = true
  deletion_protection = true
  subnet_ids          = ["subnet-1", "subnet-2"]
  security_group_ids  = { database = "sg-1", proxy = "sg-2", cache = "sg-3" }
  key_arns            = { database = "arn:aws:kms:eu-central-1:123456789012:key/d", secrets = "arn:aws:kms:eu-central-1:123456789012:key/s" }
  role_arns = {
    rds_monitoring = "arn:aws:iam::123456789012:role/m", rds_proxy = "arn:aws:iam::123456789012:role/p", backup = "arn:aws:iam::123456789012:role/b",
  }
  log_group_names = { database_postgresql = "/a", database_upgrade = "/b" }
}

run "postgres_is_private_encrypted_and_recoverable" {
  command = plan
  module {
    source = "./modules/database"
  }

  assert {
    condition     = !aws_db_instance.this["relational"].publicly_accessible && aws_db_instance.this["relational"].storage_encrypted && aws_db_instance.this["relational"].multi_az
    error_message = "The database is private, encrypted and has a standby."
  }
  assert {
    condition     = aws_db_instance.this["relational"].backup_retention_period == 35 && aws_db_instance.this["relational"].deletion_protection && !aws_db_instance.this["relational"].skip_final_snapshot
    error_message = "35 days of recovery, protected, with a last snapshot."
  }
  assert {
    condition     = aws_db_instance.this["relational"].manage_master_user_password && aws_db_instance.this["relational"].iam_database_authentication_enabled
    error_message = "No password in Terraform: RDS keeps the master's, the service has tokens."
  }
  assert {
    condition     = contains([for p in aws_db_parameter_group.this["relational"].parameter : "${p.name}=${p.value}"], "rds.force_ssl=1")
    error_message = "PostgreSQL takes TLS only."
  }
  assert {
    condition     = aws_elasticache_replication_group.this["node"].transit_encryption_enabled && aws_elasticache_replication_group.this["node"].at_rest_encryption_enabled && length(aws_elasticache_user.this) == 1
    error_message = "Valkey is encrypted both ways and knows its user."
  }
  assert {
    condition     = length(aws_dynamodb_table.this) == 0 && length(aws_backup_vault_lock_configuration.this) == 1 && length(aws_backup_restore_testing_plan.this) == 1
    error_message = "One store only; its vault is locked and its copies are tested."
  }
}

run "mysql_behind_a_proxy" {
  command = plan
  module {
    source = "./modules/database"
  }
  variables {
    engine          = "mysql"
    proxied         = true
    proxy_login     = "secret"
    log_group_names = { database_error = "/a", database_slowquery = "/b" }
  }

  assert {
    condition     = aws_db_proxy.this["relational"].require_tls && one(aws_db_proxy.this["relational"].auth).iam_auth == "REQUIRED" && aws_secretsmanager_secret.database_login["relational"].kms_key_id == var.key_arns["secrets"]
    error_message = "The proxy takes TLS and IAM tokens only; the secret behind it is encrypted with our key."
  }
  assert {
    condition     = contains([for p in aws_db_parameter_group.this["relational"].parameter : "${p.name}=${p.value}"], "require_secure_transport=1")
    error_message = "MySQL takes TLS only."
  }
}

run "dynamodb_with_counters" {
  command = plan
  module {
    source = "./modules/database"
  }
  variables {
    engine          = "dynamodb"
    valkey          = "none"
    log_group_names = {}
  }

  assert {
    condition     = toset(keys(aws_dynamodb_table.this)) == toset(["counters", "metadata", "predictions"])
    error_message = "Metadata, predictions and, without Valkey, counters."
  }
  assert {
    condition     = alltrue([for t in aws_dynamodb_table.this : t.deletion_protection_enabled && t.point_in_time_recovery[0].enabled && t.server_side_encryption[0].enabled])
    error_message = "Tables are protected, recoverable and encrypted."
  }
  assert {
    condition     = aws_dynamodb_table.this["predictions"].ttl[0].attribute_name == "expires_at" && output.limits_url == "dynamodb://modelyard-test-counters"
    error_message = "Records expire by themselves; limits are counted in the table."
  }
  assert {
    condition     = length(aws_db_instance.this) == 0
    error_message = "One store only."
  }
}

run "unknown_choices_are_refused" {
  command = plan
  module {
    source = "./modules/database"
  }
  variables {
    engine         = "oracle"
    valkey         = "memcached"
    valkey_access  = "password"
    proxy_login    = "password"
    backup         = { vault_lock = "forever", keep_days = 35, restore_test = true }
    retention_days = 0
    subnet_ids     = ["subnet-1"]
  }
  expect_failures = [var.engine, var.valkey, var.valkey_access, var.proxy_login, var.backup, var.retention_days, var.subnet_ids]
}
