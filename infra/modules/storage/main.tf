# STORE-1, STORE-2: three buckets, all private, versioned, locked where tampering would pay.
#   artifacts  models; own key; a version can't be changed or removed for 30 days (governance)
#   audit      trail, Config and flow log; own key; kept 400 days, locked as long
#   logs       load balancer and access logs; S3's own keys, for these two writers accept no other

locals {
  arn         = "arn:${var.context.partition}"
  bucket_arns = { for k, name in var.buckets : k => "${local.arn}:s3:::${name}" }
  keys        = { artifacts = "artifacts", audit = "trail" }
  audit_days  = 400
  locks = {
    artifacts = 30
    audit     = local.audit_days
  }
  lifecycles = {
    # Models are never expired by age: only what was overwritten or deleted is, and not before three months.
    artifacts = { expire_days = null, noncurrent_days = 90 }
    logs      = { expire_days = var.retention_days, noncurrent_days = 7 }
    audit     = { expire_days = local.audit_days + 1, noncurrent_days = 30 }
  }
}

resource "aws_s3_bucket" "this" {
  for_each = var.buckets

  bucket              = each.value
  object_lock_enabled = contains(keys(local.locks), each.key)
  force_destroy       = !var.deletion_protection
  tags                = merge(var.tags, { Name = each.value })
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "this" {
  for_each = local.locks

  bucket = aws_s3_bucket_versioning.this[each.key].bucket

  rule {
    default_retention {
      # Governance, not compliance: an administrator with s3:BypassGovernanceRetention can still destroy a test stack.
      mode = "GOVERNANCE"
      days = each.value
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id

  rule {
    bucket_key_enabled       = contains(keys(local.keys), each.key)
    blocked_encryption_types = ["SSE-C"]

    apply_server_side_encryption_by_default {
      sse_algorithm     = contains(keys(local.keys), each.key) ? "aws:kms" : "AES256"
      kms_master_key_id = contains(keys(local.keys), each.key) ? var.key_arns[local.keys[each.key]] : null
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = aws_s3_bucket.this

  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.lifecycles

  bucket = aws_s3_bucket_versioning.this[each.key].bucket

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = each.value.noncurrent_days
    }
  }

  dynamic "rule" {
    for_each = each.value.expire_days == null ? {} : { expiry = each.value.expire_days }

    content {
      id     = rule.key
      status = "Enabled"

      filter {}

      expiration {
        days = rule.value
      }
    }
  }
}

# Who read what: the access log of the two buckets that matter goes to the third (which can't log to itself endlessly).
resource "aws_s3_bucket_logging" "this" {
  for_each = local.keys

  bucket        = aws_s3_bucket.this[each.key].id
  target_bucket = aws_s3_bucket_policy.this["logs"].bucket
  target_prefix = "s3/${each.key}/"
}
