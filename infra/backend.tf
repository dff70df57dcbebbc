# Partial configuration: `terraform init -backend-config=backend.hcl`, the file that bootstrap/ prints as its output
# `backend_config`. The lock is an object beside the state (S3 conditional writes), so no table is needed.
terraform {
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
