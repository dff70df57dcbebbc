# Names before ARNs: every name that two modules share is composed here, so that policies are known at plan time.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_availability_zones" "available" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  context = {
    name        = "${var.project}-${var.environment}"
    environment = var.environment
    account_id  = data.aws_caller_identity.current.account_id
    partition   = data.aws_partition.current.partition
    region      = var.region
  }
  tags = {
    Project     = var.project
    Environment = var.environment
    Owner       = var.owner
    ManagedBy   = "terraform"
  }
  module_tags = { for m in local.modules : m => merge(local.tags, { Module = m }) }
  modules = [
    "security", "iam", "storage", "database", "compute", "ecs", "lambda",
    "apigateway", "autoscaling", "cloudwatch", "cloudtrail", "awsbudgets",
  ]

  # Without an image nothing can run: the service, its gateway and its scaling wait for the second apply.
  runs_ecs    = var.image != null && var.compute != "lambda"
  runs_lambda = var.image != null && var.compute == "lambda"
  runs        = var.image != null

  zones      = length(var.network.names) > 0 ? var.network.names : slice(data.aws_availability_zones.available.names, 0, var.network.zones)
  relational = var.database != "dynamodb"
  proxied    = local.relational && var.compute == "lambda"

  # Registry, repository and account come from the image's own address; before there is one, bootstrap's repository.
  repository_arn = (var.image == null
    ? "arn:${local.context.partition}:ecr:${var.region}:${local.context.account_id}:repository/${var.project}"
    : "arn:${local.context.partition}:ecr:${split(".", var.image)[3]}:${split(".", var.image)[0]}:repository/${split("@", join("/", slice(split("/", var.image), 1, length(split("/", var.image)))))[0]}"
  )

  bucket_suffix = "${local.context.account_id}-${var.region}"
  names = {
    api            = local.context.name
    stage          = "live"
    cluster        = local.context.name
    service        = "${local.context.name}-service"
    function       = "${local.context.name}-service"
    alias          = "live"
    deploy_hook    = "${local.context.name}-deploy-hook"
    key_sync       = "${local.context.name}-key-sync"
    topic          = "${local.context.name}-alerts"
    trail          = "${local.context.name}-trail"
    database       = local.context.name
    database_user  = "modelyard"
    analytics_user = "modelyard_reader"
    proxy          = "${local.context.name}-proxy"
    proxy_secret   = "${local.context.name}/database-login"
    cache          = "${local.context.name}-limits"
    admin_secret   = "${local.context.name}/admin-key"
    backup_vault   = "${local.context.name}-backup"
    tables_prefix  = local.context.name
    counters_table = "${local.context.name}-counters"
  }
  buckets = {
    artifacts = "${local.context.name}-artifacts-${local.bucket_suffix}"
    logs      = "${local.context.name}-logs-${local.bucket_suffix}"
    audit     = "${local.context.name}-audit-${local.bucket_suffix}"
  }
  log_groups = merge({
    service  = "/${var.project}/${var.environment}/service"
    gateway  = "/${var.project}/${var.environment}/gateway"
    waf      = "aws-waf-logs-${local.context.name}"
    trail    = "/${var.project}/${var.environment}/trail"
    hook     = "/aws/lambda/${local.names.deploy_hook}"
    key_sync = "/aws/lambda/${local.names.key_sync}"
    }, var.compute == "lambda" ? {} : {
    insights = "/aws/ecs/containerinsights/${local.names.cluster}/performance"
    }, var.database == "dynamodb" ? {} : {
    for kind in var.database == "postgres" ? ["postgresql", "upgrade"] : ["error", "slowquery"] :
    "database_${kind}" => "/aws/rds/instance/${local.names.database}/${kind}"
  })

  journal_durability = coalesce(var.journal_durability, var.compute == "lambda" ? "store" : "process")
  usage_plans        = local.runs ? module.apigateway[0].usage_plan_ids : {}

  # The service's settings (MODELYARD_<SECTION>__<KEY>); secrets only as references that the service resolves itself.
  environment = {
    MODELYARD_DATA                  = var.compute == "lambda" ? "/tmp/modelyard" : "/var/lib/modelyard"
    MODELYARD_ENVIRONMENT           = var.environment
    MODELYARD_DATABASE__URL         = module.database.database_url
    MODELYARD_ARTIFACTS__URL        = "s3://${local.buckets.artifacts}/models"
    MODELYARD_LIMITS__URL           = module.database.limits_url
    MODELYARD_LIMITS__TIMEOUT_MS    = var.valkey == "none" ? "250" : "50"
    MODELYARD_JOURNAL__DURABILITY   = local.journal_durability
    MODELYARD_HTTP__ROOT_PATH       = "/${local.names.stage}"
    MODELYARD_HTTP__TRUSTED_PROXIES = var.network.cidr
    MODELYARD_RETENTION__DAYS       = tostring(var.retention_days)
    MODELYARD_AUTH__ADMIN_KEY       = "aws-sm://${module.security.admin_secret_arn}"
    MODELYARD_AWS__API_ID           = local.runs ? module.apigateway[0].api_id : ""
    MODELYARD_AWS__USAGE_PLANS      = jsonencode(local.usage_plans)
  }
}

locals {
  # PERF-2: tasks that hold the declared peak, CPU at most 70 % busy, never fewer than two. A function's environment
  # answers one request at a time, however many processors it has.
  vcpu_per_task = var.compute == "lambda" ? 1 : var.sizing.cpu / 1024
  busy_vcpu     = var.load.peak_requests_per_minute / 60 * var.load.cpu_ms_per_request / 1000
  capacity = {
    needed_tasks  = max(2, ceil(local.busy_vcpu / (0.7 * local.vcpu_per_task)))
    kept_tasks    = var.sizing.min_tasks
    most_tasks    = var.sizing.max_tasks
    needed_gib    = ceil(2 * var.load.largest_model_mb / 1000)
    ephemeral_gib = var.compute == "lambda" ? min(10, var.sizing.ephemeral_gib) : var.sizing.ephemeral_gib
  }

  deviations = { for requirement, text in {
    SEC-1   = var.domain == null ? "no domain: between the gateway's VPC link and the load balancer requests travel as HTTP inside the VPC" : null
    PERF-5  = var.high_availability ? null : "high_availability = false: one zone may take the service down"
    PERF-2  = local.capacity.kept_tasks < local.capacity.needed_tasks ? "sizing.min_tasks is below the ${local.capacity.needed_tasks} tasks that the declared peak needs: a spike waits for scaling" : null
    PERF-3  = var.compute == "ecs-fargate" ? "Fargate starts in 23 to 60 s by its own account; ecs-ec2 with cached images stays under 30 s" : null
    STORE-3 = local.capacity.ephemeral_gib < local.capacity.needed_gib ? "the volume is smaller than twice the largest model (${local.capacity.needed_gib} GB)" : null
    DATA-2  = local.journal_durability == "process" ? "journal_durability = process: records not yet drained are lost when a task's host dies" : null
    SEC-5   = contains([var.account.config, var.account.guardduty], "off") ? "Config or GuardDuty is off" : null
  } : requirement => text if text != null }
}
