# How big, how fast and how many: what the service and its database are made of (variables.tf holds the choices).

variable "sizing" {
  description = "Service: cpu (units of 1/1024 vCPU) and memory_mb of a task or function, how many tasks (lambda: warm environments), processor architecture, volume for cache and spool."
  type = object({
    cpu           = optional(number, 2048)
    memory_mb     = optional(number, 4096)
    min_tasks     = optional(number, 2)
    max_tasks     = optional(number, 10)
    architecture  = optional(string, "ARM64")
    ephemeral_gib = optional(number, 40)
  })
  default = {}

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.sizing.cpu)
    error_message = "sizing.cpu must be a Fargate size: 256, 512, 1024, 2048, 4096, 8192 or 16384 units."
  }
  validation {
    condition     = var.sizing.memory_mb >= 2 * var.sizing.cpu && var.sizing.memory_mb <= 8 * var.sizing.cpu || var.compute != "ecs-fargate"
    error_message = "sizing.memory_mb must lie between 2 and 8 MB per CPU unit on Fargate, e.g. cpu = 2048 with memory_mb = 4096."
  }
  validation {
    condition     = var.compute != "lambda" || (var.sizing.memory_mb >= 128 && var.sizing.memory_mb <= 10240)
    error_message = "sizing.memory_mb must lie between 128 and 10240 when compute = \"lambda\"."
  }
  validation {
    condition     = var.sizing.min_tasks >= (var.high_availability ? 2 : 1) && var.sizing.max_tasks >= var.sizing.min_tasks
    error_message = "sizing.min_tasks must be at least 2 with high_availability (1 without), and sizing.max_tasks no smaller than min_tasks."
  }
  validation {
    condition     = contains(["ARM64", "X86_64"], var.sizing.architecture)
    error_message = "sizing.architecture must be ARM64 or X86_64, the platform the image was built for."
  }
  validation {
    condition     = var.sizing.ephemeral_gib >= 21 && var.sizing.ephemeral_gib <= 200 || var.compute == "lambda"
    error_message = "sizing.ephemeral_gib must lie between 21 and 200: it holds the artifact cache (twice the largest model) and the spool."
  }
}

variable "load" {
  description = "The load to hold: peak requests a minute, CPU milliseconds per request, size of the largest model in MB. The output capacity compares it with sizing."
  type = object({
    peak_requests_per_minute = optional(number, 10000)
    cpu_ms_per_request       = optional(number, 10)
    largest_model_mb         = optional(number, 5000)
  })
  default = {}

  validation {
    condition     = var.load.peak_requests_per_minute > 0 && var.load.cpu_ms_per_request > 0 && var.load.largest_model_mb > 0
    error_message = "load: all three figures must be above 0, e.g. { peak_requests_per_minute = 10000, cpu_ms_per_request = 10, largest_model_mb = 5000 }."
  }
}

variable "ec2" {
  description = "Only compute = \"ecs-ec2\": instance type, most instances, instances kept stopped but prepared (warm pool)."
  type = object({
    instance_type = optional(string, "m7g.xlarge")
    max_instances = optional(number, 10)
    warm          = optional(number, 1)
  })
  default = {}

  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[a-z0-9]+$", var.ec2.instance_type)) && var.ec2.max_instances >= 1 && var.ec2.warm >= 0
    error_message = "ec2 must look like { instance_type = \"m7g.xlarge\", max_instances = 10, warm = 1 }, with max_instances at least 1 and warm at least 0."
  }
}

variable "lambda" {
  description = "Only compute = \"lambda\": start (provisioned, snapstart or on-demand), most environments at once (null: the account's limit), and how the proxy before RDS signs in: iam (tokens end to end) or secret (a password that the proxy alone reads)."
  type = object({
    start                = optional(string, "provisioned")
    reserved_concurrency = optional(number)
    proxy_login          = optional(string, "iam")
  })
  default = {}

  validation {
    condition     = contains(["provisioned", "snapstart", "on-demand"], var.lambda.start)
    error_message = "lambda.start must be \"provisioned\", \"snapstart\" or \"on-demand\"; provisioned concurrency and SnapStart exclude each other."
  }
  validation {
    condition     = try(var.lambda.reserved_concurrency >= var.sizing.max_tasks, var.lambda.reserved_concurrency == null)
    error_message = "lambda.reserved_concurrency must be at least sizing.max_tasks (the most warm environments), or null."
  }
  validation {
    condition     = contains(["iam", "secret"], var.lambda.proxy_login)
    error_message = "lambda.proxy_login must be \"iam\" (tokens end to end) or \"secret\" (a password that the proxy alone reads)."
  }
}

variable "database_sizing" {
  description = "RDS: instance class (null: db.t4g.medium, or db.m7g.large in production), first and largest storage in GB, Database Insights mode. DynamoDB: ceiling of write and read units per second and table (null: none)."
  type = object({
    instance_class  = optional(string)
    storage_gb      = optional(number, 100)
    max_storage_gb  = optional(number, 1000)
    insights_mode   = optional(string, "standard")
    max_write_units = optional(number)
    max_read_units  = optional(number)
  })
  default = {}

  validation {
    condition     = var.database_sizing.storage_gb >= 20 && var.database_sizing.max_storage_gb > var.database_sizing.storage_gb
    error_message = "database_sizing.storage_gb must be at least 20, and max_storage_gb larger, so that storage can grow by itself."
  }
  validation {
    condition     = contains(["standard", "advanced"], var.database_sizing.insights_mode)
    error_message = "database_sizing.insights_mode must be \"standard\" (7 days of history) or \"advanced\" (465 days)."
  }
  validation {
    condition     = var.database_sizing.instance_class == null || can(regex("^db\\.[a-z0-9-]+\\.[a-z0-9]+$", var.database_sizing.instance_class))
    error_message = "database_sizing.instance_class must be an RDS class, e.g. \"db.m7g.large\", or null."
  }
}

variable "valkey" {
  description = "Where exact limits are counted: node (an ElastiCache Valkey group), serverless (ElastiCache Serverless) or none (a DynamoDB counter table; exact too, slower)."
  type        = string
  default     = "node"

  validation {
    condition     = contains(["node", "serverless", "none"], var.valkey)
    error_message = "valkey must be \"node\", \"serverless\" or \"none\" (a DynamoDB counter table takes its place: limits stay exact across tasks)."
  }
}

variable "valkey_access" {
  description = "How the service logs in to Valkey: iam (a user whose password is a signed token) or network (security group and TLS alone)."
  type        = string
  default     = "iam"

  validation {
    condition     = contains(["iam", "network"], var.valkey_access)
    error_message = "valkey_access must be \"iam\" (signed tokens) or \"network\" (security group and TLS alone)."
  }
}
