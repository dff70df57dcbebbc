output "address" {
  description = "Where clients call the API; null until an image was given."
  value       = local.runs ? module.apigateway[0].invoke_url : null
}

output "admin_key_secret_arn" {
  description = "Secret that holds the first administrator's key (a reference, never the value)."
  value       = module.security.admin_secret_arn
}

output "api_id" {
  description = "Identifier of the REST API, for the key synchronisation."
  value       = local.runs ? module.apigateway[0].api_id : null
}

output "usage_plan_ids" {
  description = "Usage plan of each tier of clients."
  value       = local.usage_plans
}

output "key_sync_function" {
  description = "Function that writes gateway keys for whoever sits inside the VPC."
  value       = local.runs ? module.apigateway[0].key_sync_function_name : null
}

output "artifacts_url" {
  description = "Where model artifacts are kept."
  value       = local.environment.MODELYARD_ARTIFACTS__URL
}

output "database_url" {
  description = "Login of the service, without a password: it signs in with an IAM token."
  value       = module.database.database_url
}

output "master_secret_arn" {
  description = "RDS: the managed master secret, needed once to make the service's own user; null with DynamoDB."
  value       = module.database.master_secret_arn
}

output "proxy_secret_arn" {
  description = "Only with lambda.proxy_login = secret: the secret that the database proxy signs in with, to be written when the service's user is made; else null."
  value       = module.database.proxy_secret_arn
}

output "limits_url" {
  description = "Where exact limits are counted."
  value       = module.database.limits_url
}

output "service_environment" {
  description = "Every setting that the service is started with; secrets as references."
  value       = local.environment
}

output "release" {
  description = "What the release tool needs: cluster and service with the task family, or function with alias and deployment group."
  value = {
    compute          = var.compute
    image            = var.image
    cluster          = local.runs_ecs ? module.ecs[0].cluster_name : null
    service          = local.runs_ecs ? module.ecs[0].service_name : null
    task_family      = local.runs_ecs ? module.ecs[0].task_family : null
    task_definition  = local.runs_ecs ? module.ecs[0].task_definition_arn : null
    function         = local.runs_lambda ? module.lambda[0].function_name : null
    function_version = local.runs_lambda ? module.lambda[0].function_version : null
    alias            = local.runs_lambda ? module.lambda[0].alias_name : null
    deployment_app   = local.runs_lambda ? module.lambda[0].deployment_app : null
    deployment_group = local.runs_lambda ? module.lambda[0].deployment_group : null
  }
}

output "release_required" {
  description = "True when this stack's newest task definition or function version isn't the one that runs: deploy with the release tool."
  value       = local.runs_ecs ? module.ecs[0].release_required : local.runs_lambda ? module.lambda[0].release_required : false
}

output "dashboard_url" {
  description = "Dashboard of the service."
  value       = module.cloudwatch.dashboard_url
}

output "log_groups" {
  description = "Log group of each part."
  value       = module.cloudwatch.log_group_names
}

output "alert_topic_arn" {
  description = "Topic that alarms are published to."
  value       = module.cloudwatch.topic_arn
}

output "evidence" {
  description = "Where an auditor finds the proof: trail, audit bucket, backup vault, boundary, keys."
  value = {
    trail_arn    = module.cloudtrail.trail_arn
    audit_bucket = module.storage.bucket_names["audit"]
    backup_vault = module.database.backup_vault_arn
    boundary_arn = module.iam.boundary_arn
    key_arns     = module.security.key_arns
    flow_log_id  = module.security.flow_log_id
    config       = var.account.config
    guardduty    = var.account.guardduty
    security_hub = var.account.security_hub
  }
}

output "capacity" {
  description = "Tasks that the declared load needs (two at least, CPU at most 70 % busy) beside the tasks that are kept running."
  value       = local.capacity
}

output "deviations" {
  description = "Requirement by requirement, what this choice of variables leaves open; empty when nothing is."
  value       = local.deviations
}
