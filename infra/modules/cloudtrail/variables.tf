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

variable "trail_name" {
  description = "Name of the trail."
  type        = string
}

variable "audit_bucket" {
  description = "Bucket of trail and Config; its policy is in place."
  type        = string
}

variable "data_event_buckets" {
  description = "Bucket ARNs by purpose; reads and writes of artifacts and audit are recorded."
  type        = map(string)
}

variable "key_arn" {
  description = "Key of the trail."
  type        = string
}

variable "role_arns" {
  description = "Roles by purpose; used: trail, config."
  type        = map(string)
}

variable "log_group_name" {
  description = "Log group of the trail, for metric filters."
  type        = string
}

variable "log_group_arn" {
  description = "The same by ARN, without the suffix :*."
  type        = string
}

variable "topic_arn" {
  description = "Topic of the change alarms."
  type        = string
}

variable "undelivered_arn" {
  description = "Queue of events that could not be delivered to the topic."
  type        = string
}

variable "cluster_name" {
  description = "Cluster whose failed deployments raise an alarm."
  type        = string
}

variable "guardduty" {
  description = "create, exists or off."
  type        = string

  validation {
    condition     = contains(["create", "exists", "off"], var.guardduty)
    error_message = "guardduty must be \"create\", \"exists\" or \"off\"."
  }
}

variable "config" {
  description = "create, exists or off."
  type        = string

  validation {
    condition     = contains(["create", "exists", "off"], var.config)
    error_message = "config must be \"create\", \"exists\" or \"off\"."
  }
}

variable "security_hub" {
  description = "create, exists or off."
  type        = string

  validation {
    condition     = contains(["create", "exists", "off"], var.security_hub)
    error_message = "security_hub must be \"create\", \"exists\" or \"off\"."
  }
}
