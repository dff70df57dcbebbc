# DATA-1 … DATA-4, SEC-2, OPS-4: one store of three kinds, encrypted with its own key, reachable from the service's
# groups only, with 35 days of point-in-time recovery and a second copy in a vault.

locals {
  name       = var.context.name
  arn        = "arn:${var.context.partition}"
  own        = "${var.context.region}:${var.context.account_id}"
  relational = var.engine != "dynamodb"
  rds        = local.relational ? toset(["relational"]) : toset([])
  port       = var.engine == "mysql" ? 3306 : 5432

  instance_class = coalesce(var.sizing.instance_class, var.context.environment == "production" ? "db.m7g.large" : "db.t4g.medium")

  # The way in: the proxy where there is one, else the instance.
  host = try(aws_db_proxy.this["relational"].endpoint, aws_db_instance.this["relational"].address, "")
  # RDS signs with its own authority, whose bundle the image holds (infra/README.md); the proxy with one that systems know.
  authority = var.proxied ? "" : "?${var.engine == "mysql" ? "ssl_ca" : "sslrootcert"}=/etc/ssl/rds/global-bundle.pem"
  database_url = (local.relational
    ? "iam://${var.names.database_user}@${local.host}:${local.port}/modelyard${local.authority}"
    : "dynamodb://${var.names.tables_prefix}"
  )
}
