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

variable "engine" {
  description = "postgres, mysql or dynamodb."
  type        = string

  validation {
    condition     = contains(["postgres", "mysql", "dynamodb"], var.engine)
    error_message = "engine must be \"postgres\", \"mysql\" or \"dynamodb\"."
  }
}

variable "names" {
  description = "Names: database, database_user, proxy, cache, backup_vault, tables_prefix, counters_table."
  type        = map(string)
}

variable "sizing" {
  description = "RDS class and storage, Database Insights mode; DynamoDB ceilings."
  type = object({
    instance_class  = optional(string)
    storage_gb      = optional(number, 100)
    max_storage_gb  = optional(number, 1000)
    insights_mode   = optional(string, "standard")
    max_write_units = optional(number)
    max_read_units  = optional(number)
  })
  default = {}
}

variable "valkey" {
  description = "node, serverless or none (a DynamoDB counter table)."
  type        = string

  validation {
    condition     = contains(["node", "serverless", "none"], var.valkey)
    error_message = "valkey must be \"node\", \"serverless\" or \"none\"."
  }
}

variable "valkey_access" {
  description = "iam (user with signed tokens) or network (security group and TLS alone)."
  type        = string

  validation {
    condition     = contains(["iam", "network"], var.valkey_access)
    error_message = "valkey_access must be \"iam\" or \"network\"."
  }
}

variable "proxied" {
  description = "Put a proxy before RDS: functions open more connections than a database holds."
  type        = bool
}

variable "proxy_login" {
  description = "How the proxy signs in to RDS: iam (tokens end to end) or secret (a password that the proxy alone reads)."
  type        = string

  validation {
    condition     = contains(["iam", "secret"], var.proxy_login)
    error_message = "proxy_login must be \"iam\" or \"secret\"."
  }
}

variable "backup" {
  description = "AWS Backup: vault lock (governance, compliance, off), days kept, restore test, recovery points destroyed with the stack."
  type = object({
    vault_lock         = string
    keep_days          = number
    restore_test       = bool
    destroy_with_stack = optional(bool, false)
  })

  validation {
    condition     = contains(["governance", "compliance", "off"], var.backup.vault_lock)
    error_message = "backup.vault_lock must be \"governance\", \"compliance\" or \"off\"."
  }
}

variable "retention_days" {
  description = "Days that prediction records are kept; tagged on the store, where the service reads it too."
  type        = number

  validation {
    condition     = var.retention_days >= 1
    error_message = "retention_days must be at least 1."
  }
}

variable "high_availability" {
  description = "Standby in another zone, second cache node."
  type        = bool
}

variable "deletion_protection" {
  description = "Database, tables and vault refuse to go; a final snapshot is taken."
  type        = bool
}

variable "subnet_ids" {
  description = "Data subnets, at least two."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids needs at least two data subnets in different zones."
  }
}

variable "security_group_ids" {
  description = "Groups by purpose; used: database, proxy, cache."
  type        = map(string)
}

variable "key_arns" {
  description = "Keys by purpose; used: database, secrets."
  type        = map(string)
}

variable "role_arns" {
  description = "Roles by purpose; used: rds_monitoring, rds_proxy, backup."
  type        = map(string)
}

variable "log_group_names" {
  description = "Log groups by purpose; the database's exists before RDS writes to it."
  type        = map(string)
}
