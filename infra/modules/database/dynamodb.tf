# With DynamoDB: metadata (models, endpoints, keys, releases) and predictions (records, gone by themselves after the
# retention; DynamoDB may take days for that, so the service doesn't show what has expired). Counters stand in for Valkey.

locals {
  tables = merge(
    local.relational ? {} : {
      metadata = {
        name    = "${var.names.tables_prefix}-metadata"
        range   = true
        indexes = { by_kind = { hash = "kind", range = "sort" } }
        ttl     = null
      }
      predictions = {
        name    = "${var.names.tables_prefix}-predictions"
        range   = true
        indexes = { by_day = { hash = "day", range = "at" } }
        ttl     = "expires_at"
      }
    },
    var.valkey == "none" ? {
      counters = {
        name    = var.names.counters_table
        range   = false
        indexes = {}
        ttl     = "expires_at"
      }
    } : {},
  )
}

resource "aws_dynamodb_table" "this" {
  for_each = local.tables

  name                        = each.value.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = each.value.range ? "sk" : null
  deletion_protection_enabled = var.deletion_protection
  tags                        = merge(var.tags, each.value.ttl == null ? {} : { RetentionDays = tostring(var.retention_days) })

  dynamic "attribute" {
    for_each = toset(concat(
      ["pk"],
      each.value.range ? ["sk"] : [],
      flatten([for index in values(each.value.indexes) : [index.hash, index.range]]),
    ))

    content {
      name = attribute.value
      type = "S"
    }
  }

  dynamic "global_secondary_index" {
    for_each = each.value.indexes

    content {
      name            = global_secondary_index.key
      projection_type = "ALL"

      key_schema {
        attribute_name = global_secondary_index.value.hash
        key_type       = "HASH"
      }
      key_schema {
        attribute_name = global_secondary_index.value.range
        key_type       = "RANGE"
      }
    }
  }

  dynamic "ttl" {
    for_each = each.value.ttl == null ? {} : { expiry = each.value.ttl }

    content {
      attribute_name = ttl.value
      enabled        = true
    }
  }

  dynamic "on_demand_throughput" {
    for_each = var.sizing.max_write_units == null && var.sizing.max_read_units == null ? {} : { ceiling = var.sizing }

    content {
      max_write_request_units = on_demand_throughput.value.max_write_units
      max_read_request_units  = on_demand_throughput.value.max_read_units
    }
  }

  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = 35
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.key_arns["database"]
  }
}
