# Promise: what lies in a bucket is private, encrypted, versioned and can't be tampered with.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags                = { Project = "modelyard" }
  buckets             = { artifacts = "modelyard-test-artifacts", logs = "modelyard-test-logs", audit = "modelyard-test-audit" }
  key_arns            = { artifacts = "arn:aws:kms:eu-central-1:123456789012:key/a", trail = "arn:aws:kms:eu-central-1:123456789012:key/t" }
  trail_name          = "modelyard-test-trail"
  retention_days      = 90
  deletion_protection = true
}

run "buckets_are_closed" {
  command = plan
  module {
    source = "./modules/storage"
  }

  assert {
    condition     = alltrue([for b in aws_s3_bucket_public_access_block.this : b.block_public_acls && b.block_public_policy && b.ignore_public_acls && b.restrict_public_buckets])
    error_message = "Every bucket blocks public access."
  }
  assert {
    condition     = alltrue([for p in aws_s3_bucket_policy.this : contains([for s in jsondecode(p.policy).Statement : s.Sid], "OnlyTls") && contains([for s in jsondecode(p.policy).Statement : s.Sid], "OnlyTls12")])
    error_message = "Every bucket speaks TLS 1.2 or newer only."
  }
  assert {
    condition     = contains([for s in jsondecode(aws_s3_bucket_policy.this["artifacts"].policy).Statement : s.Sid], "OnlyTheBucketsKey")
    error_message = "Nobody may name another key for a model."
  }
  assert {
    condition     = aws_s3_bucket_object_lock_configuration.this["audit"].rule[0].default_retention[0].days == 400 && aws_s3_bucket.this["artifacts"].object_lock_enabled
    error_message = "Artifacts and audit are locked."
  }
  assert {
    condition     = alltrue([for b in aws_s3_bucket.this : !b.force_destroy])
    error_message = "With deletion protection full buckets stay."
  }
}

run "a_test_stack_can_go" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    deletion_protection = false
  }

  assert {
    condition     = alltrue([for b in aws_s3_bucket.this : b.force_destroy]) && !contains([for s in jsondecode(aws_s3_bucket_policy.this["audit"].policy).Statement : s.Sid], "NothingIsRemoved")
    error_message = "Without deletion protection destroy must come through."
  }
}

run "bad_names_and_retention_are_refused" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    buckets        = { artifacts = "Not_A_Bucket", logs = "modelyard-test-logs", audit = "modelyard-test-audit" }
    retention_days = 0
  }
  expect_failures = [var.buckets, var.retention_days]
}
