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

variable "api_name" {
  description = "Name of the REST API."
  type        = string
}

variable "stage_name" {
  description = "Name of the stage; part of the path that the service sees (root_path)."
  type        = string
}

variable "key_sync_name" {
  description = "Name of the key synchronisation's function."
  type        = string
}

variable "target" {
  description = "load-balancer or lambda."
  type        = string

  validation {
    condition     = contains(["load-balancer", "lambda"], var.target)
    error_message = "target must be \"load-balancer\" or \"lambda\"."
  }
}

variable "load_balancer" {
  description = "Internal load balancer behind the VPC link; ignored with target = lambda."
  type = object({
    arn      = string
    host     = string
    port     = number
    protocol = string
  })
}

variable "function" {
  description = "Function and alias behind the gateway, by name; ignored with target = load-balancer."
  type = object({
    name  = string
    alias = string
  })
}

variable "alias_arn" {
  description = "ARN of the alias, once it exists, for the permission to call it; ignored with target = load-balancer."
  type        = string
}

variable "clients" {
  description = "Tiers of clients, each a usage plan at 1.2 times the exact rate."
  type = map(object({
    rate_per_second = number
    burst           = number
    monthly_quota   = optional(number)
  }))

  validation {
    condition     = length(var.clients) >= 1 && length(var.clients) <= 300
    error_message = "clients needs 1 to 300 tiers: a tier is a usage plan, and an account may have 300. Put clients with equal limits into one tier."
  }
}

variable "domain" {
  description = "Public name, its Route 53 zone and TLS policy (TLS_1_2, or an enhanced one); null: the gateway's own address."
  type = object({
    name       = string
    zone_id    = string
    tls_policy = optional(string, "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09")
  })

  validation {
    condition     = var.domain == null || can(regex("^(TLS_1_2|SecurityPolicy_TLS13_1_[23]_[A-Z0-9_]+)$", var.domain.tls_policy))
    error_message = "domain.tls_policy must be \"TLS_1_2\" or an enhanced policy of TLS 1.2 or 1.3, e.g. \"SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09\"; older TLS is refused (SEC-1)."
  }
}

variable "certificate_arn" {
  description = "Certificate of the domain; null without one."
  type        = string
}

variable "allowed_cidrs" {
  description = "Addresses that may call; empty: everyone with a key."
  type        = list(string)
}

variable "api_gateway_logging" {
  description = "create: set the account's logging role; exists: another stack did."
  type        = string

  validation {
    condition     = contains(["create", "exists"], var.api_gateway_logging)
    error_message = "api_gateway_logging must be \"create\" or \"exists\"."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the VPC link."
  type        = list(string)
}

variable "security_group_id" {
  description = "Group of the VPC link; null with target = lambda."
  type        = string
}

variable "role_arns" {
  description = "Roles by purpose; used: gateway_logging, key_sync."
  type        = map(string)
}

variable "key_arns" {
  description = "Keys by purpose; used: logs, secrets."
  type        = map(string)
}

variable "log_group_names" {
  description = "Log groups by purpose; used: gateway, waf, key_sync."
  type        = map(string)
}

variable "log_group_arns" {
  description = "Log group ARNs by purpose; used: gateway, waf."
  type        = map(string)
}

variable "log_retention_days" {
  description = "Days that the gateway's execution log is kept."
  type        = number
}
