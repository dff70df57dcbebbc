# The twelve modules wired together, in the order in which they need each other; nothing else.

module "security" {
  source  = "./modules/security"
  context = local.context
  tags    = local.module_tags["security"]

  network             = { cidr = var.network.cidr, zones = local.zones, egress = var.network.egress }
  compute             = var.compute
  database            = var.database
  cache               = var.valkey != "none"
  proxied             = local.proxied
  buckets             = local.buckets
  flow_log_bucket_arn = module.storage.bucket_arns["audit"]
  repository_arn      = local.repository_arn
  admin_secret_name   = local.names.admin_secret
  log_groups          = local.log_groups
  trail_name          = local.names.trail
  domain              = var.domain
  deletion_protection = var.deletion_protection
}

module "storage" {
  source  = "./modules/storage"
  context = local.context
  tags    = local.module_tags["storage"]

  buckets             = local.buckets
  key_arns            = module.security.key_arns
  trail_name          = local.names.trail
  retention_days      = var.retention_days
  deletion_protection = var.deletion_protection
}

module "iam" {
  source  = "./modules/iam"
  context = local.context
  tags    = local.module_tags["iam"]

  compute                = var.compute
  database               = var.database
  cache                  = var.valkey != "none"
  proxied                = local.proxied
  proxy_login            = var.lambda.proxy_login
  names                  = local.names
  buckets                = local.buckets
  log_groups             = local.log_groups
  repository_arn         = local.repository_arn
  login_resource_id      = module.database.login_resource_id
  database_resource_id   = module.database.database_resource_id
  analysts               = var.analysts
  create_config_role     = var.account.config == "create"
  create_gateway_role    = var.account.api_gateway_logging == "create"
  create_access_analyzer = var.account.access_analyzer == "create"
}

module "database" {
  source  = "./modules/database"
  context = local.context
  tags    = local.module_tags["database"]

  engine              = var.database
  names               = local.names
  sizing              = var.database_sizing
  valkey              = var.valkey
  valkey_access       = var.valkey_access
  proxied             = local.proxied
  proxy_login         = var.lambda.proxy_login
  backup              = var.backup
  retention_days      = var.retention_days
  high_availability   = var.high_availability
  deletion_protection = var.deletion_protection
  subnet_ids          = module.security.data_subnet_ids
  security_group_ids  = module.security.security_group_ids
  key_arns            = module.security.key_arns
  role_arns           = module.iam.role_arns
  log_group_names     = module.cloudwatch.log_group_names
}

module "compute" {
  source  = "./modules/compute"
  context = local.context
  tags    = local.module_tags["compute"]

  ebs_defaults         = var.account.ebs_defaults
  instance_defaults    = var.account.instance_defaults
  capacity             = local.runs && var.compute == "ecs-ec2"
  cluster_name         = local.names.cluster
  ec2                  = var.ec2
  architecture         = var.sizing.architecture
  ephemeral_gib        = var.sizing.ephemeral_gib
  min_instances        = var.high_availability ? 2 : 1
  deletion_protection  = var.deletion_protection
  subnet_ids           = module.security.private_subnet_ids
  security_group_id    = lookup(module.security.security_group_ids, "instance", null)
  key_arn              = module.security.key_arns["volumes"]
  instance_profile_arn = module.iam.instance_profile_arn
}

module "ecs" {
  source  = "./modules/ecs"
  count   = local.runs_ecs ? 1 : 0
  context = local.context
  tags    = local.module_tags["ecs"]

  cluster_name        = local.names.cluster
  service_name        = local.names.service
  hook_name           = local.names.deploy_hook
  image               = var.image
  launch              = var.compute == "ecs-ec2" ? "ec2" : "fargate"
  capacity_provider   = module.compute.capacity_provider_name
  sizing              = var.sizing
  release             = var.release
  environment         = local.environment
  objectives          = var.objectives
  domain_name         = try(var.domain.name, null)
  certificate_arn     = module.security.certificate_arn
  vpc_id              = module.security.vpc_id
  subnet_ids          = module.security.private_subnet_ids
  security_group_ids  = module.security.security_group_ids
  role_arns           = module.iam.service_role_arns
  key_arns            = module.security.key_arns
  log_bucket          = module.storage.bucket_names["logs"]
  log_group_names     = module.cloudwatch.log_group_names
  topic_arn           = module.cloudwatch.topic_arn
  deletion_protection = var.deletion_protection
}

module "lambda" {
  source  = "./modules/lambda"
  count   = local.runs_lambda ? 1 : 0
  context = local.context
  tags    = local.module_tags["lambda"]

  function_name      = local.names.function
  alias_name         = local.names.alias
  hook_name          = local.names.deploy_hook
  image              = var.image
  start              = var.lambda.start
  sizing             = var.sizing
  reserved           = var.lambda.reserved_concurrency
  release            = var.release
  environment        = local.environment
  objectives         = var.objectives
  subnet_ids         = module.security.private_subnet_ids
  security_group_ids = module.security.security_group_ids
  role_arns          = module.iam.service_role_arns
  key_arns           = module.security.key_arns
  log_group_names    = module.cloudwatch.log_group_names
  topic_arn          = module.cloudwatch.topic_arn
}

module "apigateway" {
  source  = "./modules/apigateway"
  count   = local.runs ? 1 : 0
  context = local.context
  tags    = local.module_tags["apigateway"]

  api_name      = local.names.api
  stage_name    = local.names.stage
  key_sync_name = local.names.key_sync
  target        = var.compute == "lambda" ? "lambda" : "load-balancer"
  load_balancer = {
    arn      = try(module.ecs[0].load_balancer_arn, "")
    host     = try(module.ecs[0].load_balancer_host, "")
    port     = try(module.ecs[0].load_balancer_port, 443)
    protocol = var.domain == null ? "http" : "https"
  }
  function = { name = local.names.function, alias = local.names.alias }
  # The permission waits for the alias; the API's body is composed from names, for the function's settings name the API.
  alias_arn           = try(module.lambda[0].alias_arn, "")
  clients             = var.clients
  domain              = var.domain
  certificate_arn     = module.security.certificate_arn
  allowed_cidrs       = var.allowed_cidrs
  api_gateway_logging = var.account.api_gateway_logging
  subnet_ids          = module.security.private_subnet_ids
  security_group_id   = lookup(module.security.security_group_ids, "link", null)
  role_arns           = module.iam.role_arns
  key_arns            = module.security.key_arns
  log_group_names     = module.cloudwatch.log_group_names
  log_group_arns      = module.cloudwatch.log_group_arns
  log_retention_days  = module.cloudwatch.log_retention_days
}

module "autoscaling" {
  source  = "./modules/autoscaling"
  count   = local.runs ? 1 : 0
  context = local.context
  tags    = local.module_tags["autoscaling"]

  kind                  = local.runs_lambda ? "lambda" : "ecs"
  cluster_name          = local.runs_ecs ? module.ecs[0].cluster_name : ""
  service_name          = local.runs_ecs ? module.ecs[0].service_name : ""
  function_name         = local.runs_lambda ? module.lambda[0].function_name : ""
  alias_name            = local.runs_lambda ? module.lambda[0].alias_name : ""
  provisioned           = var.lambda.start == "provisioned"
  min_capacity          = var.sizing.min_tasks
  max_capacity          = var.sizing.max_tasks
  scaling               = var.scaling
  load_balancer_suffix  = local.runs_ecs ? module.ecs[0].load_balancer_suffix : ""
  target_group_suffixes = local.runs_ecs ? module.ecs[0].target_group_suffixes : {}
}

module "cloudwatch" {
  source  = "./modules/cloudwatch"
  context = local.context
  tags    = local.module_tags["cloudwatch"]

  log_groups     = local.log_groups
  retention_days = var.retention_days
  key_arn        = module.security.key_arns["logs"]
  topic_name     = local.names.topic
  alert_emails   = var.alert_emails
  objectives     = var.objectives
  watched = {
    api           = local.runs ? { name = local.names.api, stage = local.names.stage } : null
    ecs           = local.runs_ecs ? { cluster = local.names.cluster, service = local.names.service, max_tasks = var.sizing.max_tasks, min_tasks = var.sizing.min_tasks } : null
    function      = local.runs_lambda ? { name = local.names.function, alias = local.names.alias } : null
    database      = { engine = var.database, name = local.names.database, instance_class = module.database.instance_class, storage_gb = var.database_sizing.storage_gb, table_names = module.database.table_names }
    cache         = var.valkey == "node" ? module.database.cache_member_ids : {}
    ephemeral_gib = var.sizing.ephemeral_gib
  }
  load_balancer_suffix  = local.runs_ecs ? module.ecs[0].load_balancer_suffix : ""
  target_group_suffixes = local.runs_ecs ? module.ecs[0].target_group_suffixes : {}
  backup_vault_name     = local.names.backup_vault
  watch_certificate     = var.domain != null
  certificate_arn       = module.security.certificate_arn
}

module "cloudtrail" {
  source  = "./modules/cloudtrail"
  context = local.context
  tags    = local.module_tags["cloudtrail"]

  trail_name         = local.names.trail
  audit_bucket       = module.storage.bucket_names["audit"]
  data_event_buckets = module.storage.bucket_arns
  key_arn            = module.security.key_arns["trail"]
  role_arns          = module.iam.role_arns
  log_group_name     = module.cloudwatch.log_group_names["trail"]
  log_group_arn      = module.cloudwatch.log_group_arns["trail"]
  topic_arn          = module.cloudwatch.topic_arn
  undelivered_arn    = module.cloudwatch.undelivered_queue_arn
  cluster_name       = local.names.cluster
  guardduty          = var.account.guardduty
  config             = var.account.config
  security_hub       = var.account.security_hub
}

module "awsbudgets" {
  source  = "./modules/awsbudgets"
  context = local.context
  tags    = local.module_tags["awsbudgets"]

  monthly_budget_usd   = var.monthly_budget_usd
  topic_arn            = module.cloudwatch.topic_arn
  alert_emails         = var.alert_emails
  project              = var.project
  anomaly_monitor      = var.account.anomaly_monitor
  cost_allocation_tags = var.cost_allocation_tags
}
