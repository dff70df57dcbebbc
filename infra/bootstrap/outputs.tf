output "repository_url" {
  description = "Where images are pushed; image = \"<this>@sha256:<digest>\"."
  value       = aws_ecr_repository.this.repository_url
}

output "state_bucket" {
  description = "Bucket of the state."
  value       = aws_s3_bucket.state.bucket
}

output "backend_config" {
  description = "Contents of backend.hcl: terraform output -raw backend_config > ../backend.hcl"
  value       = <<-HCL
    bucket     = "${aws_s3_bucket.state.bucket}"
    key        = "${var.project}.tfstate"
    region     = "${var.region}"
    kms_key_id = "${aws_kms_key.this.arn}"
  HCL
}

output "pipeline_role_arn" {
  description = "Role that the pipeline assumes; null without one."
  value       = try(aws_iam_role.pipeline["this"].arn, null)
}
