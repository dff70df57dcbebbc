# Every "or" of the requirements is a variable here, sizes in variables-size.tf. Wrong values are refused at plan time
# with a sentence.

# --- who and where ---------------------------------------------------------------------------------------------------

variable "project" {
  description = "Prefix of every name and value of the tag Project."
  type        = string
  default     = "modelyard"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,10}[a-z0-9]$", var.project))
    error_message = "project must be 2 to 12 lower-case letters, digits or hyphens, starting with a letter, e.g. \"modelyard\": load balancer and bucket names are built from it and may not grow longer."
  }
}

variable "environment" {
  description = "development, test, staging or production. Production demands high availability and a domain."
  type        = string
  default     = "staging"

  validation {
    condition     = contains(["development", "test", "staging", "production"], var.environment)
    error_message = "environment must be one of development, test, staging, production."
  }
}

variable "owner" {
  description = "Team that answers for the stack; value of the tag Owner."
  type        = string
  default     = "ml-platform"

  validation {
    condition     = can(regex("^[\\w .:/=+@-]{1,128}$", var.owner))
    error_message = "owner must be 1 to 128 characters that AWS accepts in a tag, e.g. \"ml-platform\"."
  }
}

variable "region" {
  description = "The one AWS region of the stack."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[1-9]$", var.region))
    error_message = "region must be the code of an AWS region, e.g. \"eu-central-1\"."
  }
}

# --- the three choices -----------------------------------------------------------------------------------------------

variable "compute" {
  description = "Where the service runs: ecs-fargate, ecs-ec2 or lambda."
  type        = string
  default     = "ecs-fargate"

  validation {
    condition     = contains(["ecs-fargate", "ecs-ec2", "lambda"], var.compute)
    error_message = "compute must be \"ecs-fargate\" (no servers to keep), \"ecs-ec2\" (cached images, starts within 30 s) or \"lambda\" (pay per call)."
  }
}

variable "database" {
  description = "Where metadata and the prediction log live: postgres, mysql (both RDS) or dynamodb."
  type        = string
  default     = "postgres"

  validation {
    condition     = contains(["postgres", "mysql", "dynamodb"], var.database)
    error_message = "database must be \"postgres\", \"mysql\" or \"dynamodb\"."
  }
}

variable "image" {
  description = "Container image by digest, in a registry of ECR. null: everything but the service is made, so that the image can be pushed first."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9._/-]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must name an ECR image by its digest, e.g. \"123456789012.dkr.ecr.eu-central-1.amazonaws.com/modelyard@sha256:<64 hex digits>\": a tag can be moved after the tests have run."
  }
}

# --- promises --------------------------------------------------------------------------------------------------------

variable "high_availability" {
  description = "Two tasks at least, a standby database in another zone, a second Valkey node. Production can't do without."
  type        = bool
  default     = true

  validation {
    condition     = var.high_availability || var.environment != "production"
    error_message = "high_availability = false is refused in production: 99.9 % (PERF-5) needs a second zone. Set high_availability = true or another environment."
  }
}

variable "deletion_protection" {
  description = "Database, tables, load balancer and full buckets refuse to go. Set to false and apply before terraform destroy."
  type        = bool
  default     = true
}

variable "retention_days" {
  description = "Days that prediction records and service logs are kept (DATA-4)."
  type        = number
  default     = 90

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 3653 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days must be a whole number of days, at least 1 and at most 3653; 90 is what DATA-4 asks for."
  }
}

variable "objectives" {
  description = "What alarms hold the service to: availability (share of requests answered) and p95 latency in ms."
  type = object({
    availability   = optional(number, 0.999)
    latency_p95_ms = optional(number, 1000)
  })
  default = {}

  validation {
    condition     = var.objectives.availability >= 0.9 && var.objectives.availability < 1 && var.objectives.latency_p95_ms > 0
    error_message = "objectives.availability must be a share from 0.9 to below 1, e.g. 0.999, and objectives.latency_p95_ms above 0."
  }
}

variable "journal_durability" {
  description = "When an answer may leave: process (record in the local spool) or store (record committed in the database). null: store on Lambda, process elsewhere."
  type        = string
  default     = null

  validation {
    condition     = var.journal_durability == null || contains(["process", "store"], coalesce(var.journal_durability, "store"))
    error_message = "journal_durability must be \"process\", \"store\" or null."
  }
  validation {
    condition     = !(var.compute == "lambda" && var.journal_durability == "process")
    error_message = "journal_durability = \"process\" is refused with compute = \"lambda\": a frozen environment takes its spool with it. Leave it null or write \"store\"."
  }
}

variable "release" {
  description = "How a new image takes over: strategy (BLUE_GREEN, LINEAR, CANARY), minutes both colours stay up, per cent and minutes of a step."
  type = object({
    strategy     = optional(string, "BLUE_GREEN")
    bake_minutes = optional(number, 10)
    step_percent = optional(number, 10)
    step_minutes = optional(number, 5)
  })
  default = {}

  validation {
    condition     = contains(["BLUE_GREEN", "LINEAR", "CANARY"], var.release.strategy)
    error_message = "release.strategy must be BLUE_GREEN (all at once after the test), LINEAR (equal steps) or CANARY (one small step first)."
  }
  validation {
    condition     = var.release.bake_minutes >= 1 && var.release.bake_minutes <= 1440 && var.release.step_percent >= 1 && var.release.step_percent <= 50 && var.release.step_minutes >= 1
    error_message = "release needs bake_minutes from 1 to 1440, step_percent from 1 to 50 and step_minutes of at least 1."
  }
}

variable "scaling" {
  description = "Targets of automatic scaling: CPU and memory per cent, requests a second and task, warm concurrency share on Lambda; schedules (cron in UTC) that move the floor."
  type = object({
    cpu_percent              = optional(number, 50)
    memory_percent           = optional(number, 70)
    requests_per_task_second = optional(number, 50)
    concurrency_share        = optional(number, 0.7)
    schedules = optional(map(object({
      cron      = string
      min_tasks = number
      max_tasks = number
    })), {})
  })
  default = {}

  validation {
    condition     = alltrue([for v in [var.scaling.cpu_percent, var.scaling.memory_percent] : v >= 10 && v <= 90]) && var.scaling.concurrency_share >= 0.1 && var.scaling.concurrency_share <= 0.9 && var.scaling.requests_per_task_second > 0
    error_message = "scaling: cpu_percent and memory_percent must lie between 10 and 90, concurrency_share between 0.1 and 0.9, requests_per_task_second above 0."
  }
  validation {
    condition     = alltrue([for s in values(var.scaling.schedules) : s.min_tasks >= (var.high_availability ? 2 : 1) && s.max_tasks >= s.min_tasks])
    error_message = "scaling.schedules: every min_tasks must be at least 2 with high_availability (1 without), and max_tasks no smaller."
  }
}

variable "backup" {
  description = "AWS Backup: vault lock (governance, compliance, off), days that recovery points are kept, monthly restore test, and whether destroying the stack also destroys its recovery points."
  type = object({
    vault_lock         = optional(string, "governance")
    keep_days          = optional(number, 35)
    restore_test       = optional(bool, true)
    destroy_with_stack = optional(bool, false)
  })
  default = {}

  validation {
    condition     = contains(["governance", "compliance", "off"], var.backup.vault_lock)
    error_message = "backup.vault_lock must be \"governance\" (an administrator may lift it), \"compliance\" (nobody may, ever) or \"off\"."
  }
  validation {
    condition     = var.backup.keep_days >= 7 && var.backup.keep_days <= 365
    error_message = "backup.keep_days must lie between 7 and 365."
  }
  validation {
    condition     = !(var.backup.destroy_with_stack && (var.deletion_protection || var.backup.vault_lock == "compliance"))
    error_message = "backup.destroy_with_stack needs deletion_protection = false and a vault lock other than \"compliance\", which nobody can lift."
  }
}

# --- people, keys, money ---------------------------------------------------------------------------------------------

variable "alert_emails" {
  description = "Addresses that alarms and budget warnings go to; at least one."
  type        = list(string)

  validation {
    condition     = length(var.alert_emails) > 0 && alltrue([for a in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s.]+(\\.[^@\\s.]+)+$", a))])
    error_message = "alert_emails must hold at least one e-mail address, and nothing else, e.g. [\"oncall@example.com\"]."
  }
}

variable "monthly_budget_usd" {
  description = "Budget of a month in USD (COST-1 asks for less than 5,000)."
  type        = number
  default     = 5000

  validation {
    condition     = var.monthly_budget_usd > 0 && var.monthly_budget_usd <= 1000000
    error_message = "monthly_budget_usd must be above 0, e.g. 5000: with a budget of 0 every cent is an alarm, and soon nobody reads it."
  }
}

variable "clients" {
  description = "Tiers of clients: exact limit in requests a second, burst, and requests a month. Usage plans in the gateway get 1.2 times the rate, as a shield."
  type = map(object({
    rate_per_second = number
    burst           = number
    monthly_quota   = optional(number)
  }))
  default = {
    standard = { rate_per_second = 50, burst = 100 }
    premium  = { rate_per_second = 200, burst = 400 }
  }

  validation {
    condition     = length(var.clients) > 0 && alltrue([for k, c in var.clients : can(regex("^[a-z][a-z0-9-]{0,30}$", k)) && c.rate_per_second > 0 && c.burst >= c.rate_per_second])
    error_message = "clients needs at least one tier; names in lower case, rate_per_second above 0, burst no smaller than the rate, e.g. { standard = { rate_per_second = 50, burst = 100 } }."
  }
}

variable "analysts" {
  description = "ARNs of people's roles or users who may read the prediction log, with a second factor; empty: nobody may."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.analysts : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/.+$", a))])
    error_message = "analysts must hold ARNs of roles or users, e.g. [\"arn:aws:iam::123456789012:role/analysts\"], never a whole account."
  }
}

variable "cost_allocation_tags" {
  description = "Activate the tags Project and Environment in the bill. Off at first: only the paying account may, and only a day after the tags were first seen."
  type        = bool
  default     = false
}

# --- network ---------------------------------------------------------------------------------------------------------

variable "network" {
  description = "Address range, number of zones (or their names: VPC links are not offered in every zone), egress (endpoints: no way to the internet; nat: one NAT gateway a zone)."
  type = object({
    cidr   = optional(string, "10.64.0.0/20")
    zones  = optional(number, 3)
    names  = optional(list(string), [])
    egress = optional(string, "endpoints")
  })
  default = {}

  validation {
    condition     = can(cidrhost(var.network.cidr, 0)) && try(cidrsubnet(var.network.cidr, 0, 0) == var.network.cidr, false)
    error_message = "network.cidr must be an IPv4 range written by its first address, e.g. \"10.64.0.0/20\"."
  }
  validation {
    condition     = try(tonumber(split("/", var.network.cidr)[1]) >= 16 && tonumber(split("/", var.network.cidr)[1]) <= 22, false)
    error_message = "network.cidr is too small for the subnets (or larger than a VPC may be): it is cut into 16 parts, so it must be between /16 and /22, e.g. \"10.64.0.0/20\"."
  }
  validation {
    condition     = contains([2, 3], var.network.zones) && (length(var.network.names) == 0 || length(var.network.names) == var.network.zones)
    error_message = "network.zones must be 2 or 3, and network.names empty or exactly that many zone names."
  }
  validation {
    condition     = contains(["endpoints", "nat"], var.network.egress)
    error_message = "network.egress must be \"endpoints\" or \"nat\"."
  }
}

variable "domain" {
  description = "Public name of the API, the Route 53 zone it lives in and the gateway's TLS policy: certificate, TLS 1.2 or newer, HTTPS to the load balancer. Required in production."
  type = object({
    name       = string
    zone_id    = optional(string)
    tls_policy = optional(string, "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09")
  })
  default = null

  validation {
    condition     = var.domain == null || can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.domain.name))
    error_message = "domain.name must be a host name in lower case, e.g. \"api.example.com\"."
  }
  validation {
    condition     = var.domain == null || can(regex("^[A-Z0-9]{4,32}$", var.domain.zone_id))
    error_message = "domain needs zone_id, the Route 53 zone that proves its certificate, e.g. { name = \"api.example.com\", zone_id = \"Z0123456789ABCDEFGHIJ\" }."
  }
  validation {
    condition     = var.domain == null || can(regex("^(TLS_1_2|SecurityPolicy_TLS13_1_[23]_[A-Z0-9_]+)$", var.domain.tls_policy))
    error_message = "domain.tls_policy must be one of API Gateway's policies of TLS 1.2 or 1.3 for regional names, e.g. \"SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09\", or \"TLS_1_2\" for clients without forward secrecy."
  }
  validation {
    condition     = var.domain != null || var.environment != "production"
    error_message = "domain is required in production: without a public certificate the way from the gateway to the load balancer can't be TLS (SEC-1)."
  }
}

variable "allowed_cidrs" {
  description = "Addresses that may call the gateway; empty: everyone with a key."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.allowed_cidrs : can(cidrhost(c, 0))])
    error_message = "allowed_cidrs must hold address ranges, e.g. [\"203.0.113.0/24\"]."
  }
}

# --- account ---------------------------------------------------------------------------------------------------------

variable "account" {
  description = "Settings that exist once per account and region: create makes them, exists leaves another stack's alone, off (guardduty, config, security_hub) goes without."
  type = object({
    ebs_defaults        = optional(string, "create")
    instance_defaults   = optional(string, "create")
    api_gateway_logging = optional(string, "create")
    anomaly_monitor     = optional(string, "create")
    guardduty           = optional(string, "create")
    config              = optional(string, "create")
    security_hub        = optional(string, "off")
    access_analyzer     = optional(string, "create")
  })
  default = {}

  validation {
    condition     = alltrue([for v in [var.account.ebs_defaults, var.account.instance_defaults, var.account.api_gateway_logging, var.account.anomaly_monitor] : contains(["create", "exists"], v)])
    error_message = "account.ebs_defaults, account.instance_defaults, account.api_gateway_logging and account.anomaly_monitor must be \"create\" or \"exists\"."
  }
  validation {
    condition     = alltrue([for v in [var.account.guardduty, var.account.config, var.account.security_hub, var.account.access_analyzer] : contains(["create", "exists", "off"], v)])
    error_message = "account.guardduty, account.config, account.security_hub and account.access_analyzer must be \"create\", \"exists\" or \"off\"."
  }
}
