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

variable "function_name" {
  description = "Name of the function."
  type        = string
}

variable "alias_name" {
  description = "Alias that traffic goes to."
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

variable "start" {
  description = "provisioned, snapstart or on-demand."
  type        = string

  validation {
    condition     = contains(["provisioned", "snapstart", "on-demand"], var.start)
    error_message = "start must be \"provisioned\", \"snapstart\" or \"on-demand\"."
  }
}

variable "sizing" {
  description = "Memory, warm environments (min_tasks), architecture, volume (at most 10 GiB here)."
  type = object({
    cpu           = number
    memory_mb     = number
    min_tasks     = number
    max_tasks     = number
    architecture  = string
    ephemeral_gib = number
  })
}

variable "reserved" {
  description = "Most environments at once; null: the account's limit."
  type        = number
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

variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Groups by purpose; used: function."
  type        = map(string)
}

variable "role_arns" {
  description = "Roles by purpose; used: function, codedeploy, deploy_hook."
  type        = map(string)
}

variable "key_arns" {
  description = "Keys by purpose; used: secrets."
  type        = map(string)
}

variable "log_group_names" {
  description = "Log groups by purpose; used: service, hook."
  type        = map(string)
}

variable "topic_arn" {
  description = "Topic of the deployment's alarms."
  type        = string
}
