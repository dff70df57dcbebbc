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

variable "kind" {
  description = "ecs or lambda."
  type        = string

  validation {
    condition     = contains(["ecs", "lambda"], var.kind)
    error_message = "kind must be \"ecs\" or \"lambda\"."
  }
}

variable "cluster_name" {
  description = "Cluster; empty on Lambda."
  type        = string
}

variable "service_name" {
  description = "Service; empty on Lambda."
  type        = string
}

variable "function_name" {
  description = "Function; empty on ECS."
  type        = string
}

variable "alias_name" {
  description = "Alias; empty on ECS."
  type        = string
}

variable "provisioned" {
  description = "Lambda: whether provisioned concurrency exists to be scaled."
  type        = bool
}

variable "min_capacity" {
  description = "Fewest tasks, or warm environments."
  type        = number

  validation {
    condition     = var.min_capacity >= 1
    error_message = "min_capacity must be at least 1: a service scaled to nothing has no warm start (PERF-3)."
  }
}

variable "max_capacity" {
  description = "Most tasks, or warm environments."
  type        = number

  validation {
    condition     = var.max_capacity >= var.min_capacity
    error_message = "max_capacity must be no smaller than min_capacity."
  }
}

variable "scaling" {
  description = "Targets and schedules."
  type = object({
    cpu_percent              = number
    memory_percent           = number
    requests_per_task_second = number
    concurrency_share        = number
    schedules = map(object({
      cron      = string
      min_tasks = number
      max_tasks = number
    }))
  })
}

variable "load_balancer_suffix" {
  description = "Dimension LoadBalancer; empty on Lambda."
  type        = string
}

variable "target_group_suffixes" {
  description = "Dimension TargetGroup by colour; empty on Lambda."
  type        = map(string)
}
