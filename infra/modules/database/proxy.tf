# Functions come and go by the hundred, and each would hold a connection: the proxy pools them. In front it takes IAM
# tokens only. Behind it signs in by IAM too (proxy_login = "iam"), or with the one secret below, which the service never
# sees. The secret is made empty: whoever sets up the database user writes {"username": …, "password": …} into it.

locals {
  proxies       = var.proxied && local.relational ? local.rds : toset([])
  proxy_secrets = var.proxy_login == "secret" ? local.proxies : toset([])
}

resource "aws_secretsmanager_secret" "database_login" {
  for_each = local.proxy_secrets

  name                    = var.names.proxy_secret
  description             = "Login of the service's database user, for the proxy alone"
  kms_key_id              = var.key_arns["secrets"]
  recovery_window_in_days = var.deletion_protection ? 30 : 0
  tags                    = var.tags
}

resource "aws_db_proxy" "this" {
  for_each = local.proxies

  name                   = var.names.proxy
  engine_family          = var.engine == "mysql" ? "MYSQL" : "POSTGRESQL"
  role_arn               = var.role_arns["rds_proxy"]
  require_tls            = true
  default_auth_scheme    = var.proxy_login == "iam" ? "IAM_AUTH" : null
  idle_client_timeout    = 1800
  debug_logging          = false
  vpc_subnet_ids         = var.subnet_ids
  vpc_security_group_ids = [var.security_group_ids["proxy"]]
  tags                   = var.tags

  dynamic "auth" {
    for_each = local.proxy_secrets

    content {
      auth_scheme = "SECRETS"
      iam_auth    = "REQUIRED"
      secret_arn  = aws_secretsmanager_secret.database_login[auth.value].arn
    }
  }
}

resource "aws_db_proxy_default_target_group" "this" {
  for_each = local.proxies

  db_proxy_name = aws_db_proxy.this[each.key].name

  connection_pool_config {
    max_connections_percent      = 90
    max_idle_connections_percent = 50
    connection_borrow_timeout    = 5
  }
}

resource "aws_db_proxy_target" "this" {
  for_each = local.proxies

  db_proxy_name          = aws_db_proxy.this[each.key].name
  target_group_name      = aws_db_proxy_default_target_group.this[each.key].name
  db_instance_identifier = aws_db_instance.this[each.key].identifier
}
