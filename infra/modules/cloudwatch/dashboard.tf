# One page for the people on call, and the questions they ask of the logs.

locals {
  by_status = var.watched.api == null ? [] : [
    for metric in ["Count", "4XXError", "5XXError"] : ["AWS/ApiGateway", metric, "ApiName", var.watched.api.name, "Stage", var.watched.api.stage, { stat = "Sum" }]
  ]
  latencies = var.watched.api == null ? [] : concat([
    for p in ["p50", "p95", "p99"] : ["AWS/ApiGateway", "Latency", "ApiName", var.watched.api.name, "Stage", var.watched.api.stage, { stat = p }]
  ], [["AWS/ApiGateway", "IntegrationLatency", "ApiName", var.watched.api.name, "Stage", var.watched.api.stage, { stat = "p95" }]])
  own = { for metric, stat in {
    PredictionsAnswered = "Sum", PredictionsLogged = "Sum", PredictionErrors = "Sum", RateLimited = "Sum",
    SpoolOldestAge      = "Maximum", SpoolBytes = "Maximum", Saturation = "Maximum", GuardFailing = "Maximum",
  } : metric => ["Modelyard", metric, "Environment", var.context.environment, { stat = stat }] }
  # Endpoints and versions come and go; a search finds them.
  by_version = { for metric, stat in { PredictionsAnswered = "Sum", PredictionErrors = "Sum", Latency = "p95" } : metric => [[{
    expression = "SEARCH('{Modelyard,Environment,Endpoint,Version} MetricName=\"${metric}\" Environment=\"${var.context.environment}\"', '${stat}', 60)"
    label      = "$${PROP('Dim.Endpoint')} $${PROP('Dim.Version')}"
  }]] }
  hosts = [for suffix in values(var.target_group_suffixes) :
    ["AWS/ApplicationELB", "HealthyHostCount", "LoadBalancer", var.load_balancer_suffix, "TargetGroup", suffix, { stat = "Minimum" }]
  ]
  tasks = var.watched.ecs == null ? [] : [
    for metric in ["CPUUtilization", "MemoryUtilization"] : ["AWS/ECS", metric, "ClusterName", var.watched.ecs.cluster, "ServiceName", var.watched.ecs.service, { stat = "Average" }]
  ]
  environments = var.watched.function == null ? [] : [
    for metric in ["ConcurrentExecutions", "Throttles", "Errors"] : ["AWS/Lambda", metric, "FunctionName", var.watched.function.name, "Resource", "${var.watched.function.name}:${var.watched.function.alias}", { stat = "Maximum" }]
  ]
  database = local.relational ? [
    for metric in ["CPUUtilization", "DatabaseConnections", "FreeStorageSpace"] : ["AWS/RDS", metric, "DBInstanceIdentifier", var.watched.database.name, { stat = "Average" }]
    ] : [
    for table in values(var.watched.database.table_names) : ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", table, { stat = "Sum" }]
  ]
  charts = [
    { title = "Requests (API-1)", metrics = local.by_status },
    { title = "Latency in ms (API-6)", metrics = local.latencies },
    { title = "Predictions answered and logged (DATA-2)", metrics = [local.own.PredictionsAnswered, local.own.PredictionsLogged, local.own.PredictionErrors] },
    { title = "Predictions by endpoint and version (OPS-6)", metrics = local.by_version["PredictionsAnswered"] },
    { title = "Errors by endpoint and version (OPS-6)", metrics = local.by_version["PredictionErrors"] },
    { title = "p95 latency in ms by endpoint and version (OPS-6)", metrics = local.by_version["Latency"] },
    { title = "Spool: oldest record in s, bytes (DATA-2)", metrics = [local.own.SpoolOldestAge, local.own.SpoolBytes] },
    { title = "Saturation, refused by limits, failing guards", metrics = [local.own.Saturation, local.own.RateLimited, local.own.GuardFailing] },
    { title = "Healthy tasks, both colours (PERF-5)", metrics = local.hosts },
    { title = "Tasks (PERF-1)", metrics = local.tasks },
    { title = "Function (PERF-3)", metrics = local.environments },
    { title = "Database", metrics = local.database },
  ]
  shown = [for chart in local.charts : chart if length(chart.metrics) > 0]

  queries = {
    errors     = { group = "service", text = "fields @timestamp, event, code, request_id, message\n| filter level = \"error\"\n| sort @timestamp desc\n| limit 100" }
    slow       = { group = "gateway", text = "fields @timestamp, requestId, path, status, responseLatency, integrationLatency\n| filter responseLatency > ${var.objectives.latency_p95_ms}\n| sort responseLatency desc\n| limit 100" }
    by-client  = { group = "gateway", text = "stats count(*) as requests, sum(status = 429) as limited, sum(status >= 500) as failed by apiKeyId\n| sort requests desc\n| limit 50" }
    refused    = { group = "gateway", text = "fields @timestamp, ip, path, status, error\n| filter status in [401, 403]\n| stats count(*) as refused by ip\n| sort refused desc\n| limit 50" }
    blocked    = { group = "waf", text = "fields @timestamp, httpRequest.clientIp, httpRequest.uri, terminatingRuleId\n| filter action = \"BLOCK\"\n| sort @timestamp desc\n| limit 100" }
    who-did-it = { group = "trail", text = "fields @timestamp, userIdentity.arn, eventName, requestParameters\n| filter readOnly = 0\n| sort @timestamp desc\n| limit 100" }
  }
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.context.name
  dashboard_body = jsonencode({
    widgets = concat(
      [for index, chart in local.shown : {
        type       = "metric"
        x          = index % 2 * 12
        y          = floor(index / 2) * 6
        width      = 12
        height     = 6
        properties = { title = chart.title, region = var.context.region, view = "timeSeries", period = 60, metrics = chart.metrics }
      }],
      [{
        type       = "log"
        x          = 0
        y          = ceil(length(local.shown) / 2) * 6
        width      = 24
        height     = 6
        properties = { title = "Errors of the service", region = var.context.region, view = "table", query = "SOURCE '${var.log_groups["service"]}' | ${local.queries["errors"].text}" }
      }],
    )
  })
}

resource "aws_cloudwatch_query_definition" "this" {
  for_each = local.queries

  name            = "${var.context.name}/${each.key}"
  log_group_names = [aws_cloudwatch_log_group.this[each.value.group].name]
  query_string    = each.value.text
}
