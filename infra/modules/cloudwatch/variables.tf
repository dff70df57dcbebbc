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

variable "log_groups" {
  description = "Log group names by purpose."
  type        = map(string)
}

variable "retention_days" {
  description = "Days that data logs are kept; audit logs stay 400."
  type        = number

  validation {
    condition     = var.retention_days >= 1
    error_message = "retention_days must be at least 1."
  }
}

variable "key_arn" {
  description = "Key of log groups and topic."
  type        = string
}

variable "topic_name" {
  description = "Name of the alert topic."
  type        = string
}

variable "alert_emails" {
  description = "Receivers of alarms."
  type        = list(string)
}

variable "objectives" {
  description = "Availability and p95 latency that alarms hold the service to."
  type = object({
    availability   = number
    latency_p95_ms = number
  })
}

variable "watched" {
  description = "What exists to be watched, by name; null or empty where it doesn't."
  type = object({
    api           = object({ name = string, stage = string })
    ecs           = object({ cluster = string, service = string, min_tasks = number, max_tasks = number })
    function      = object({ name = string, alias = string })
    database      = object({ engine = string, name = string, instance_class = string, storage_gb = number, table_names = map(string) })
    cache         = map(string)
    ephemeral_gib = number
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

variable "backup_vault_name" {
  description = "Vault whose failed jobs raise an alarm."
  type        = string
}

variable "watch_certificate" {
  description = "Whether there is a certificate to watch: its ARN is not known before it exists."
  type        = bool
}

variable "certificate_arn" {
  description = "Certificate whose expiry is watched; null without a domain."
  type        = string
}
