variable "context" {
  description = "Who and where: name prefix, environment, account, partition and region. ARNs are composed from it, so that policies are known at plan time."
  type = object({
    name        = string
    environment = string
    account_id  = string
    partition   = string
    region      = string
  })
}

variable "tags" {
  description = "Tags of every resource: Project, Environment, Module, Owner, ManagedBy."
  type        = map(string)
}

variable "compute" {
  description = "ecs-fargate, ecs-ec2 or lambda: decides which roles exist."
  type        = string

  validation {
    condition     = contains(["ecs-fargate", "ecs-ec2", "lambda"], var.compute)
    error_message = "compute must be \"ecs-fargate\", \"ecs-ec2\" or \"lambda\"."
  }
}

variable "database" {
  description = "postgres, mysql or dynamodb: decides how the service may reach its data."
  type        = string

  validation {
    condition     = contains(["postgres", "mysql", "dynamodb"], var.database)
    error_message = "database must be \"postgres\", \"mysql\" or \"dynamodb\"."
  }
}

variable "cache" {
  description = "Whether limits are counted in Valkey (true) or in a DynamoDB table (false)."
  type        = bool
}

variable "proxied" {
  description = "Whether a database proxy needs a role."
  type        = bool
}

variable "proxy_login" {
  description = "How that proxy signs in to RDS: iam or secret."
  type        = string

  validation {
    condition     = contains(["iam", "secret"], var.proxy_login)
    error_message = "proxy_login must be \"iam\" or \"secret\"."
  }
}

variable "names" {
  description = "Names of what the policies are about: cluster, service, function, alias, deploy_hook, key_sync, database, database_user, analytics_user, proxy, proxy_secret, cache, admin_secret, backup_vault, tables_prefix, counters_table, trail, topic, api."
  type        = map(string)
}

variable "buckets" {
  description = "Bucket names by purpose."
  type        = map(string)
}

variable "log_groups" {
  description = "Log group names by purpose."
  type        = map(string)
}

variable "repository_arn" {
  description = "Image repository that may be pulled from."
  type        = string
}

variable "login_resource_id" {
  description = "Identifier (RDS instance or proxy) that the service signs in to; null with DynamoDB."
  type        = string
}

variable "database_resource_id" {
  description = "Identifier of the RDS instance, for analysts; null with DynamoDB."
  type        = string
}

variable "analysts" {
  description = "ARNs of people's roles or users who may read the prediction log; empty: the role isn't made."
  type        = list(string)

  validation {
    condition     = alltrue([for a in var.analysts : can(regex(":(role|user)/", a))])
    error_message = "analysts must hold ARNs of roles or users, never a whole account."
  }
}

variable "create_config_role" {
  description = "Make the role of the AWS Config recorder."
  type        = bool
}

variable "create_gateway_role" {
  description = "Make the role by which API Gateway writes its logs."
  type        = bool
}

variable "create_access_analyzer" {
  description = "Make IAM Access Analyzer for this account and region."
  type        = bool
}
