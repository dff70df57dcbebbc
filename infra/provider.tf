# One region (PERF-4): the whole stack lives where this provider points; no module has a provider block of its own.
provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}
