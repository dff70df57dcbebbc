# Applied once per account and region, before the first image, with its state kept locally (or moved into the bucket it
# makes): the bucket of Terraform's state, the image registry, and the role by which the pipeline enters.

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  arn        = "arn:${local.partition}"
  root       = "${local.arn}:iam::${local.account_id}:root"
  name       = "${var.project}-bootstrap"
  state      = "${var.project}-state-${local.account_id}-${var.region}"
  tags = {
    Project     = var.project
    Environment = "shared"
    Module      = "bootstrap"
    Owner       = var.owner
    ManagedBy   = "terraform"
  }
}

# One key for state and images: both are the pipeline's, and both are worth as much as the stack itself.
resource "aws_kms_key" "this" {
  description             = "${local.name}: state and images"
  enable_key_rotation     = true
  rotation_period_in_days = 365
  deletion_window_in_days = var.deletion_protection ? 30 : 7

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Administration"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action = [
          "kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:ListKeyPolicies", "kms:UpdateKeyDescription",
          "kms:EnableKey", "kms:DisableKey", "kms:GetKeyRotationStatus", "kms:EnableKeyRotation", "kms:DisableKeyRotation",
          "kms:RotateKeyOnDemand", "kms:ListKeyRotations", "kms:TagResource", "kms:UntagResource", "kms:ListResourceTags",
          "kms:CreateAlias", "kms:UpdateAlias", "kms:DeleteAlias", "kms:ListGrants", "kms:RevokeGrant",
          "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
        ]
        Resource = "*"
      },
      {
        Sid       = "ThroughServices"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant", "kms:RetireGrant", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { StringEquals = {
          "kms:CallerAccount" = local.account_id
          "kms:ViaService"    = ["s3.${var.region}.amazonaws.com", "ecr.${var.region}.amazonaws.com"]
        } }
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.this.key_id
}
