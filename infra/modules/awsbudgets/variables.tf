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

variable "monthly_budget_usd" {
  description = "Budget of a month in USD."
  type        = number

  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd must be above 0, e.g. 5000."
  }
}

variable "topic_arn" {
  description = "Topic of the warnings."
  type        = string
}

variable "alert_emails" {
  description = "Receivers of the warnings."
  type        = list(string)
}

variable "project" {
  description = "Value of the tag Project that the budget is filtered by, once cost tags are active."
  type        = string
}

variable "anomaly_monitor" {
  description = "create, or exists where the account has its one service monitor already."
  type        = string

  validation {
    condition     = contains(["create", "exists"], var.anomaly_monitor)
    error_message = "anomaly_monitor must be \"create\" or \"exists\"."
  }
}

variable "cost_allocation_tags" {
  description = "Activate the tags in the bill and filter the budget by them."
  type        = bool
}
