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

variable "buckets" {
  description = "Bucket names by purpose: artifacts, logs, audit."
  type        = map(string)

  validation {
    condition     = alltrue([for b in values(var.buckets) : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", b))])
    error_message = "buckets must hold names of 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "key_arns" {
  description = "Keys by purpose; used: artifacts, trail."
  type        = map(string)
}

variable "trail_name" {
  description = "The one trail that may write to the audit bucket."
  type        = string
}

variable "retention_days" {
  description = "Days that access logs are kept."
  type        = number

  validation {
    condition     = var.retention_days >= 1
    error_message = "retention_days must be at least 1."
  }
}

variable "deletion_protection" {
  description = "Buckets that still hold objects refuse to go."
  type        = bool
}
