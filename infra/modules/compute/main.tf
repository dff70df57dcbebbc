# SEC-6: every volume of this account and region is encrypted with our key, whoever makes it and whatever runs on it.
# These are settings of the account: with "exists" another stack made them and this one leaves them alone.

locals {
  ebs_defaults      = var.ebs_defaults == "create" ? toset(["account"]) : toset([])
  instance_defaults = var.instance_defaults == "create" ? toset(["account"]) : toset([])
}

resource "aws_ebs_encryption_by_default" "this" {
  for_each = local.ebs_defaults

  enabled = true
}

resource "aws_ebs_default_kms_key" "this" {
  for_each = local.ebs_defaults

  key_arn = var.key_arn
}

resource "aws_ebs_snapshot_block_public_access" "this" {
  for_each = local.instance_defaults

  state = "block-all-sharing"
}

# Whoever starts an instance without saying so gets IMDSv2: tokens that a forged request can't fetch.
resource "aws_ec2_instance_metadata_defaults" "this" {
  for_each = local.instance_defaults

  http_tokens                 = "required"
  http_put_response_hop_limit = 1
  http_endpoint               = "enabled"
  instance_metadata_tags      = "disabled"
}
