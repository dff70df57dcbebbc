variable "project" {
  description = "Prefix of every name; the same as in the stack."
  type        = string
  default     = "modelyard"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,10}[a-z0-9]$", var.project))
    error_message = "project must be 2 to 12 lower-case letters, digits or hyphens, starting with a letter, e.g. \"modelyard\"."
  }
}

variable "owner" {
  description = "Value of the tag Owner."
  type        = string
  default     = "ml-platform"
}

variable "region" {
  description = "Region of the state, the images and the stack."
  type        = string
  default     = "eu-central-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[1-9]$", var.region))
    error_message = "region must be the code of an AWS region, e.g. \"eu-central-1\"."
  }
}

variable "kept_images" {
  description = "Releases whose images stay in the registry."
  type        = number
  default     = 30

  validation {
    condition     = var.kept_images >= 2
    error_message = "kept_images must be at least 2: the running image and the one to go back to."
  }
}

variable "pipeline" {
  description = "The pipeline's token: issuer, audience, subjects that may enter (exact, no wildcards), and whether the identity provider is made here (create) or exists. null: no pipeline."
  type = object({
    issuer   = optional(string, "https://token.actions.githubusercontent.com")
    audience = optional(string, "sts.amazonaws.com")
    subjects = list(string)
    provider = optional(string, "create")
  })
  default = null

  validation {
    condition     = var.pipeline == null || try(length(var.pipeline.subjects) > 0 && alltrue([for s in var.pipeline.subjects : !strcontains(s, "*")]), false)
    error_message = "pipeline.subjects must name who may enter exactly, without wildcards, e.g. [\"repo:example/modelyard:environment:production\"]."
  }
  validation {
    condition     = var.pipeline == null || try(startswith(var.pipeline.issuer, "https://") && contains(["create", "exists"], var.pipeline.provider), false)
    error_message = "pipeline.issuer must start with https://, and pipeline.provider must be \"create\" or \"exists\"."
  }
}

variable "deletion_protection" {
  description = "State and images refuse to go while there are any."
  type        = bool
  default     = true
}
