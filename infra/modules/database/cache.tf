# API-5: limits are exact across tasks because they are counted in one place. Counters are worth nothing a minute later,
# so no snapshots are kept.

locals {
  cache_port       = 6379
  nodes            = var.valkey == "node" ? (var.high_availability ? 2 : 1) : 0
  cache_member_ids = { for i in range(1, local.nodes + 1) : format("%03d", i) => "${var.names.cache}-${format("%03d", i)}" }
  cache_users      = var.valkey != "none" && var.valkey_access == "iam" ? toset(["service"]) : toset([])
  cache_host       = try(aws_elasticache_replication_group.this["node"].primary_endpoint_address, aws_elasticache_serverless_cache.this["serverless"].endpoint[0].address, "")
  cache_address    = "${local.cache_host}:${local.cache_port}"
  cache_url        = var.valkey_access == "iam" ? "iam://${var.names.cache}@${local.cache_address}/${var.names.cache}" : "rediss://${local.cache_address}"
  limits_url       = var.valkey == "none" ? "dynamodb://${var.names.counters_table}" : local.cache_url
}

resource "aws_elasticache_subnet_group" "this" {
  for_each = var.valkey == "node" ? toset(["node"]) : toset([])

  name        = var.names.cache
  description = "Data subnets: no route to the internet"
  subnet_ids  = var.subnet_ids
  tags        = var.tags
}

# A user whose password is a signed token of the service's role; with IAM, name and identifier must be the same. It may run
# the service's script and what that calls (docs/concepts/limits.md), and nothing else.
resource "aws_elasticache_user" "this" {
  for_each = local.cache_users

  user_id       = var.names.cache
  user_name     = var.names.cache
  engine        = "valkey"
  access_string = "on ~modelyard:* resetchannels -@all +eval +evalsha +time +get +set +hget +hset +hdel +pexpire"
  tags          = var.tags

  authentication_mode {
    type = "iam"
  }
}

resource "aws_elasticache_user_group" "this" {
  for_each = local.cache_users

  user_group_id = var.names.cache
  engine        = "valkey"
  user_ids      = [aws_elasticache_user.this[each.key].user_id]
  tags          = var.tags
}

resource "aws_elasticache_replication_group" "this" {
  for_each = var.valkey == "node" ? toset(["node"]) : toset([])

  replication_group_id       = var.names.cache
  description                = "Exact limits of ${local.name}"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = var.context.environment == "production" ? "cache.m7g.large" : "cache.t4g.small"
  num_cache_clusters         = local.nodes
  automatic_failover_enabled = var.high_availability
  multi_az_enabled           = var.high_availability
  port                       = local.cache_port
  subnet_group_name          = aws_elasticache_subnet_group.this[each.key].name
  security_group_ids         = [var.security_group_ids["cache"]]
  at_rest_encryption_enabled = true
  kms_key_id                 = var.key_arns["database"]
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  user_group_ids             = length(local.cache_users) > 0 ? [aws_elasticache_user_group.this["service"].user_group_id] : null
  auto_minor_version_upgrade = true
  maintenance_window         = "sun:03:30-sun:04:30"
  snapshot_retention_limit   = 0
  apply_immediately          = false
  tags                       = var.tags
}

resource "aws_elasticache_serverless_cache" "this" {
  for_each = var.valkey == "serverless" ? toset(["serverless"]) : toset([])

  name                 = var.names.cache
  description          = "Exact limits of ${local.name}"
  engine               = "valkey"
  major_engine_version = "8"
  kms_key_id           = var.key_arns["database"]
  subnet_ids           = var.subnet_ids
  security_group_ids   = [var.security_group_ids["cache"]]
  user_group_id        = length(local.cache_users) > 0 ? aws_elasticache_user_group.this["service"].user_group_id : null
  tags                 = var.tags

  cache_usage_limits {
    data_storage {
      maximum = 1
      unit    = "GB"
    }
    ecpu_per_second {
      maximum = 5000
    }
  }
}
