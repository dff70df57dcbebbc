# Alarms on one metric: name, what it means, and when it speaks. Alarms over several metrics are in computed.tf.

locals {
  api_dims      = tomap(var.watched.api == null ? {} : { ApiName = var.watched.api.name, Stage = var.watched.api.stage })
  ecs_dims      = tomap(var.watched.ecs == null ? {} : { ClusterName = var.watched.ecs.cluster, ServiceName = var.watched.ecs.service })
  function_dims = tomap(var.watched.function == null ? {} : { FunctionName = var.watched.function.name, Resource = "${var.watched.function.name}:${var.watched.function.alias}" })
  database_dims = tomap({ DBInstanceIdentifier = var.watched.database.name })
  relational    = var.watched.database.engine != "dynamodb"

  # max_connections is memory / 9,531,392 on PostgreSQL and / 12,582,880 on MySQL (RDS user guide); memory follows the class.
  class_parts     = split(".", coalesce(var.watched.database.instance_class, "db.t4g.medium"))
  size_gib        = { micro = 1, small = 2, medium = 4, large = 8, xlarge = 16, "2xlarge" = 32, "4xlarge" = 64, "8xlarge" = 128, "12xlarge" = 192, "16xlarge" = 256, "24xlarge" = 384 }
  memory_gib      = lookup(local.size_gib, local.class_parts[2], 8) * (startswith(local.class_parts[1], "r") ? 2 : 1)
  max_connections = min(5000, floor(local.memory_gib * 1073741824 / (var.watched.database.engine == "mysql" ? 12582880 : 9531392)))

  of_api = var.watched.api == null ? {} : {
    latency-p95 = {
      says = "page: p95 of all requests is above the objective (API-6)", namespace = "AWS/ApiGateway", metric = "Latency", dims = local.api_dims
      stat = "p95", compare = "GreaterThanThreshold", threshold = var.objectives.latency_p95_ms, period = 60, of = 5, datapoints = 3, missing = "notBreaching"
    }
  }
  of_service = var.watched.api == null ? {} : {
    saturation = {
      says = "page: more than 80 % of the permits are in use", namespace = "Modelyard", metric = "Saturation", dims = local.modelyard_dims
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = 0.8, period = 60, of = 5, datapoints = 3, missing = "notBreaching"
    }
    spool-age = {
      says = "page: prediction records wait longer than five minutes for the database (DATA-2)", namespace = "Modelyard", metric = "SpoolOldestAge", dims = local.modelyard_dims
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = 300, period = 60, of = 2, datapoints = 2, missing = "notBreaching"
    }
    guard-failing = {
      says = "page: a release guard of a model fails; it is being rolled back (OPS-2)", namespace = "Modelyard", metric = "GuardFailing", dims = local.modelyard_dims
      stat = "Maximum", compare = "GreaterThanOrEqualToThreshold", threshold = 1, period = 60, of = 1, datapoints = 1, missing = "notBreaching"
    }
  }
  of_spool = var.watched.ecs == null ? {} : {
    spool-bytes = {
      says = "page: the spool fills more than half of the volume (DATA-2)", namespace = "Modelyard", metric = "SpoolBytes", dims = local.modelyard_dims
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = local.spool_bytes / 2, period = 60, of = 2, datapoints = 2, missing = "notBreaching"
    }
    heartbeat = {
      says = "page: no task has reported for ten minutes (every live task does, each five seconds)", namespace = "Modelyard", metric = "Saturation", dims = local.modelyard_dims
      stat = "SampleCount", compare = "LessThanThreshold", threshold = 1, period = 300, of = 2, datapoints = 2, missing = "breaching"
    }
    cpu = {
      says = "page: tasks use more than 80 % of their CPU (PERF-1)", namespace = "AWS/ECS", metric = "CPUUtilization", dims = local.ecs_dims
      stat = "Average", compare = "GreaterThanThreshold", threshold = 80, period = 60, of = 5, datapoints = 3, missing = "breaching"
    }
    memory = {
      says = "page: tasks use more than 85 % of their memory (PERF-1)", namespace = "AWS/ECS", metric = "MemoryUtilization", dims = local.ecs_dims
      stat = "Average", compare = "GreaterThanThreshold", threshold = 85, period = 60, of = 5, datapoints = 3, missing = "breaching"
    }
    ceiling = {
      says = "ticket: as many tasks run as are allowed; raise sizing.max_tasks (PERF-2)", namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", dims = local.ecs_dims
      stat = "Maximum", compare = "GreaterThanOrEqualToThreshold", threshold = var.watched.ecs.max_tasks, period = 60, of = 5, datapoints = 5, missing = "notBreaching"
    }
  }
  of_function = var.watched.function == null ? {} : {
    function-errors = {
      says = "page: the function failed", namespace = "AWS/Lambda", metric = "Errors", dims = local.function_dims
      stat = "Sum", compare = "GreaterThanThreshold", threshold = 5, period = 60, of = 3, datapoints = 2, missing = "notBreaching"
    }
    function-throttles = {
      says = "page: the function is refused more environments; raise the reserved or the account's concurrency", namespace = "AWS/Lambda", metric = "Throttles", dims = local.function_dims
      stat = "Sum", compare = "GreaterThanThreshold", threshold = 0, period = 60, of = 3, datapoints = 2, missing = "notBreaching"
    }
    function-warm = {
      says = "ticket: warm environments are nearly all in use; what comes beyond starts cold (PERF-3)", namespace = "AWS/Lambda", metric = "ProvisionedConcurrencyUtilization", dims = local.function_dims
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = 0.95, period = 60, of = 5, datapoints = 3, missing = "notBreaching"
    }
  }
  of_database = local.relational ? {
    database-cpu = {
      says = "page: the database uses more than 80 % of its CPU", namespace = "AWS/RDS", metric = "CPUUtilization", dims = local.database_dims
      stat = "Average", compare = "GreaterThanThreshold", threshold = 80, period = 60, of = 5, datapoints = 3, missing = "breaching"
    }
    database-storage = {
      says = "page: less than 15 % of the database's storage is free", namespace = "AWS/RDS", metric = "FreeStorageSpace", dims = local.database_dims
      stat = "Minimum", compare = "LessThanThreshold", threshold = var.watched.database.storage_gb * 1073741824 * 0.15, period = 60, of = 5, datapoints = 3, missing = "breaching"
    }
    database-connections = {
      says = "page: more than 80 % of the connections that the class allows are open", namespace = "AWS/RDS", metric = "DatabaseConnections", dims = local.database_dims
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = floor(0.8 * local.max_connections), period = 60, of = 5, datapoints = 3, missing = "notBreaching"
    }
  } : {}
  of_credits = local.relational && startswith(local.class_parts[1], "t") ? {
    database-credits = {
      says = "ticket: the burstable class is nearly out of CPU credits", namespace = "AWS/RDS", metric = "CPUCreditBalance", dims = local.database_dims
      stat = "Minimum", compare = "LessThanThreshold", threshold = 50, period = 300, of = 3, datapoints = 3, missing = "notBreaching"
    }
  } : {}
  of_transactions = var.watched.database.engine == "postgres" ? {
    database-transactions = {
      says = "ticket: transaction numbers run out unless an old transaction ends and vacuum goes on", namespace = "AWS/RDS", metric = "MaximumUsedTransactionIDs", dims = local.database_dims
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = 1000000000, period = 300, of = 3, datapoints = 3, missing = "notBreaching"
    }
  } : {}
  of_tables = merge([for key in keys(var.watched.database.table_names) : {
    for kind, metric in { write = "WriteThrottleEvents", read = "ReadThrottleEvents" } : "table-${key}-${kind}-throttled" => {
      says                      = "page: the table refuses ${kind}s", namespace = "AWS/DynamoDB", metric = metric, dims = tomap({ TableName = var.watched.database.table_names[key] })
      stat                      = "Sum", compare = "GreaterThanThreshold", threshold = 0, period = 60, of = 5, datapoints = 3, missing = "notBreaching"
  } }]...)
  of_cache = merge([for key in keys(var.watched.cache) : {
    for kind, metric in { cpu = "EngineCPUUtilization", memory = "DatabaseMemoryUsagePercentage" } : "cache-${key}-${kind}" => {
      says                    = "ticket: the node that counts limits is short of ${kind}", namespace = "AWS/ElastiCache", metric = metric, dims = tomap({ CacheClusterId = var.watched.cache[key] })
      stat                    = "Maximum", compare = "GreaterThanThreshold", threshold = 80, period = 60, of = 5, datapoints = 3, missing = "notBreaching"
  } }]...)
  of_certificate = var.watch_certificate ? {
    certificate = {
      says = "ticket: the certificate ends within 30 days and was not renewed", namespace = "AWS/CertificateManager", metric = "DaysToExpiry", dims = tomap({ CertificateArn = var.certificate_arn })
      stat = "Minimum", compare = "LessThanThreshold", threshold = 30, period = 86400, of = 1, datapoints = 1, missing = "notBreaching"
    }
  } : {}
  of_queue = {
    undelivered = {
      says = "ticket: an event could not be delivered to the topic; read it in the queue", namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dims = tomap({ QueueName = local.queue_name })
      stat = "Maximum", compare = "GreaterThanThreshold", threshold = 0, period = 300, of = 1, datapoints = 1, missing = "notBreaching"
    }
    service-errors = {
      says = "ticket: the service wrote more than ten errors in five minutes", namespace = "${var.context.name}/logs", metric = "ServiceErrors", dims = tomap({})
      stat = "Sum", compare = "GreaterThanThreshold", threshold = 10, period = 300, of = 3, datapoints = 2, missing = "notBreaching"
    }
    keys-refused = {
      says = "ticket: the gateway refused more than 500 keys in five minutes: a lost client, or somebody guessing", namespace = "${var.context.name}/logs", metric = "KeysRefused", dims = tomap({})
      stat = "Sum", compare = "GreaterThanThreshold", threshold = 500, period = 300, of = 2, datapoints = 2, missing = "notBreaching"
    }
  }
  direct = merge(
    local.of_api, local.of_service, local.of_spool, local.of_function, local.of_database, local.of_credits,
    local.of_transactions, local.of_tables, local.of_cache, local.of_certificate, local.of_queue,
  )
}

resource "aws_cloudwatch_metric_alarm" "direct" {
  for_each = local.direct

  alarm_name          = "${var.context.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dims
  statistic           = startswith(each.value.stat, "p") ? null : each.value.stat
  extended_statistic  = startswith(each.value.stat, "p") ? each.value.stat : null
  comparison_operator = each.value.compare
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = each.value.of
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = each.value.missing
  # A percentile of three requests says nothing.
  evaluate_low_sample_count_percentiles = startswith(each.value.stat, "p") ? "ignore" : null
  alarm_actions                         = [aws_sns_topic.alerts.arn]
  ok_actions                            = [aws_sns_topic.alerts.arn]
  tags                                  = var.tags
}
