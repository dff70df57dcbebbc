# Bucket policies, composed from names so that they are known at plan time. Statements that deny hold for everyone.

locals {
  own_source  = { StringEquals = { "aws:SourceAccount" = var.context.account_id } }
  account_arn = "${var.context.region}:${var.context.account_id}"
  trail_arn   = "${local.arn}:cloudtrail:${local.account_arn}:trail/${var.trail_name}"

  deny_everywhere = { for k, arn in local.bucket_arns : k => [
    {
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "s3:*" # A denial: the wider, the safer.
      Resource  = [arn, "${arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    },
    {
      Sid       = "OnlyTls12"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "s3:*" # A denial: the wider, the safer.
      Resource  = [arn, "${arn}/*"]
      Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
    },
  ] }

  statements = {
    artifacts = concat(
      [
        {
          Sid       = "OnlyKms"
          Effect    = "Deny"
          Principal = { AWS = "*" }
          Action    = "s3:PutObject"
          Resource  = "${local.bucket_arns.artifacts}/*"
          Condition = { StringNotEqualsIfExists = { "s3:x-amz-server-side-encryption" = "aws:kms" } }
        },
        {
          # Who names no key gets the bucket's own. Nobody may name one, so no other key can be used; and the policy
          # needs no key's identifier, which is unknown until it is made.
          Sid       = "OnlyTheBucketsKey"
          Effect    = "Deny"
          Principal = { AWS = "*" }
          Action    = "s3:PutObject"
          Resource  = "${local.bucket_arns.artifacts}/*"
          Condition = { Null = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = "false" } }
        },
      ],
      var.deletion_protection ? [{
        Sid       = "NoVersionIsRemoved"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutBucketVersioning"]
        Resource  = [local.bucket_arns.artifacts, "${local.bucket_arns.artifacts}/*"]
      }] : [],
    )
    logs = concat(
      [{
        Sid       = "LoadBalancerLogs"
        Effect    = "Allow"
        Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
        Action    = ["s3:PutObject"]
        Resource  = [for prefix in ["alb", "alb-connections"] : "${local.bucket_arns.logs}/${prefix}/AWSLogs/${var.context.account_id}/*"]
        Condition = { ArnLike = { "aws:SourceArn" = "${local.arn}:elasticloadbalancing:${local.account_arn}:loadbalancer/*" } }
      }],
      [for purpose in keys(local.keys) : {
        Sid       = "AccessLogOf${title(purpose)}"
        Effect    = "Allow"
        Principal = { Service = "logging.s3.amazonaws.com" }
        Action    = ["s3:PutObject"]
        Resource  = "${local.bucket_arns.logs}/s3/${purpose}/*"
        Condition = {
          StringEquals = { "aws:SourceAccount" = var.context.account_id }
          ArnLike      = { "aws:SourceArn" = local.bucket_arns[purpose] }
        }
      }],
    )
    # CloudTrail names its key itself and writes its digests with S3's own keys: no demand on the header here, the
    # bucket's default and the trail's setting see to encryption.
    audit = concat(
      [
        {
          Sid       = "TrailLooks"
          Effect    = "Allow"
          Principal = { Service = "cloudtrail.amazonaws.com" }
          Action    = "s3:GetBucketAcl"
          Resource  = local.bucket_arns.audit
          Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn } }
        },
        {
          Sid       = "TrailWrites"
          Effect    = "Allow"
          Principal = { Service = "cloudtrail.amazonaws.com" }
          Action    = "s3:PutObject"
          Resource  = "${local.bucket_arns.audit}/trail/AWSLogs/${var.context.account_id}/*"
          Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn, "s3:x-amz-acl" = "bucket-owner-full-control" } }
        },
        {
          Sid       = "ConfigLooks"
          Effect    = "Allow"
          Principal = { Service = "config.amazonaws.com" }
          Action    = ["s3:GetBucketAcl", "s3:ListBucket"]
          Resource  = local.bucket_arns.audit
          Condition = local.own_source
        },
        {
          Sid       = "ConfigWrites"
          Effect    = "Allow"
          Principal = { Service = "config.amazonaws.com" }
          Action    = "s3:PutObject"
          Resource  = "${local.bucket_arns.audit}/config/AWSLogs/${var.context.account_id}/*"
          Condition = { StringEquals = { "aws:SourceAccount" = var.context.account_id, "s3:x-amz-acl" = "bucket-owner-full-control" } }
        },
        {
          Sid       = "FlowLogLooks"
          Effect    = "Allow"
          Principal = { Service = "delivery.logs.amazonaws.com" }
          Action    = ["s3:GetBucketAcl", "s3:ListBucket"]
          Resource  = local.bucket_arns.audit
          Condition = local.own_source
        },
        {
          Sid       = "FlowLogWrites"
          Effect    = "Allow"
          Principal = { Service = "delivery.logs.amazonaws.com" }
          Action    = "s3:PutObject"
          # The second form is the one of hourly partitions.
          Resource = [for owner in ["", "aws-account-id="] : "${local.bucket_arns.audit}/AWSLogs/${owner}${var.context.account_id}/*"]
          Condition = {
            StringEquals = { "aws:SourceAccount" = var.context.account_id, "s3:x-amz-acl" = "bucket-owner-full-control" }
            ArnLike      = { "aws:SourceArn" = "${local.arn}:logs:${local.account_arn}:*" }
          }
        },
      ],
      var.deletion_protection ? [{
        Sid       = "NothingIsRemoved"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutBucketVersioning"]
        Resource  = [local.bucket_arns.audit, "${local.bucket_arns.audit}/*"]
      }] : [],
    )
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.statements

  bucket = aws_s3_bucket.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat(local.deny_everywhere[each.key], each.value) })

  # Two changes of one bucket's access at once are refused by S3; and once it stands, the policy forbids to touch versioning.
  depends_on = [aws_s3_bucket_public_access_block.this, aws_s3_bucket_versioning.this]
}
