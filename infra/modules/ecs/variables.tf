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

variable "cluster_name" {
  description = "Name of the cluster."
  type        = string
}

variable "service_name" {
  description = "Name of the service and of the task family."
  type        = string
}

variable "hook_name" {
  description = "Name of the deployment hook's function."
  type        = string
}

variable "image" {
  description = "Container image by digest."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must be named by its digest (…@sha256:<64 hex digits>): a tag can be moved."
  }
}

variable "launch" {
  description = "fargate or ec2."
  type        = string

  validation {
    condition     = contains(["fargate", "ec2"], var.launch)
    error_message = "launch must be \"fargate\" or \"ec2\"."
  }
}

variable "capacity_provider" {
  description = "Capacity provider of the instances; null on Fargate."
  type        = string
}

variable "sizing" {
  description = "Task size, fewest and most tasks, architecture, volume."
  type = object({
    cpu           = number
    memory_mb     = number
    min_tasks     = number
    max_tasks     = number
    architecture  = string
    ephemeral_gib = number
  })
}

variable "release" {
  description = "Deployment strategy and its times."
  type = object({
    strategy     = string
    bake_minutes = number
    step_percent = number
    step_minutes = number
  })

  validation {
    condition     = contains(["BLUE_GREEN", "LINEAR", "CANARY"], var.release.strategy)
    error_message = "release.strategy must be BLUE_GREEN, LINEAR or CANARY."
  }
}

variable "environment" {
  description = "Settings of the service; secrets as references."
  type        = map(string)
}

variable "objectives" {
  description = "What the deployment's alarms hold a release to."
  type = object({
    availability   = number
    latency_p95_ms = number
  })
}

variable "domain_name" {
  description = "Public name; the load balancer answers to origin.<name>. null: HTTP inside the VPC."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate of the listeners; null without a domain."
  type        = string
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Groups by purpose; used: load_balancer, service, hook."
  type        = map(string)
}

variable "role_arns" {
  description = "Roles by purpose; used: execution, task, ecs_infrastructure, hook_invoker, deploy_hook."
  type        = map(string)
}

variable "key_arns" {
  description = "Keys by purpose; used: logs, volumes, secrets."
  type        = map(string)
}

variable "log_bucket" {
  description = "Bucket of the load balancer's logs."
  type        = string
}

variable "log_group_names" {
  description = "Log groups by purpose; used: service, hook."
  type        = map(string)
}

variable "topic_arn" {
  description = "Topic of the deployment's alarms."
  type        = string
}

variable "deletion_protection" {
  description = "The load balancer refuses to go."
  type        = bool
}
