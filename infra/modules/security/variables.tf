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

variable "network" {
  description = "Address range, zone names, and egress: endpoints (no way out) or nat."
  type = object({
    cidr   = string
    zones  = list(string)
    egress = string
  })

  validation {
    condition     = length(var.network.zones) >= 2
    error_message = "network.zones needs at least two zones: one may fail."
  }
  validation {
    condition     = contains(["endpoints", "nat"], var.network.egress)
    error_message = "network.egress must be \"endpoints\" or \"nat\"."
  }
}

variable "compute" {
  description = "ecs-fargate, ecs-ec2 or lambda: decides which security groups and endpoints exist."
  type        = string

  validation {
    condition     = contains(["ecs-fargate", "ecs-ec2", "lambda"], var.compute)
    error_message = "compute must be \"ecs-fargate\", \"ecs-ec2\" or \"lambda\"."
  }
}

variable "database" {
  description = "postgres, mysql or dynamodb: decides the port, or the gateway endpoint."
  type        = string

  validation {
    condition     = contains(["postgres", "mysql", "dynamodb"], var.database)
    error_message = "database must be \"postgres\", \"mysql\" or \"dynamodb\"."
  }
}

variable "cache" {
  description = "Whether a Valkey cache lives in the data subnets."
  type        = bool
}

variable "proxied" {
  description = "Whether a database proxy stands before RDS."
  type        = bool
}

variable "buckets" {
  description = "Bucket names by purpose (artifacts, logs, audit), for the endpoint policy."
  type        = map(string)
}

variable "flow_log_bucket_arn" {
  description = "Bucket that takes the flow log."
  type        = string
}

variable "repository_arn" {
  description = "Image repository that may be pulled from."
  type        = string
}

variable "admin_secret_name" {
  description = "Name of the empty secret that will hold the first administrator's key."
  type        = string
}

variable "log_groups" {
  description = "Log group names by purpose, for key and endpoint policies."
  type        = map(string)
}

variable "trail_name" {
  description = "Trail, for the key policy."
  type        = string
}

variable "domain" {
  description = "Public name and its Route 53 zone; null: no certificate."
  type = object({
    name    = string
    zone_id = string
  })
}

variable "deletion_protection" {
  description = "Keys wait 30 days before they go (7 without), secrets too."
  type        = bool
}
