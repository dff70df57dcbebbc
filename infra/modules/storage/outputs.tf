output "bucket_names" {
  description = "Bucket by purpose; known at plan time, ready to be written to when it is used."
  value       = var.buckets
  # A composed value carries no order: who writes to a bucket must find its policy in place.
  depends_on = [aws_s3_bucket_policy.this]
}

output "bucket_arns" {
  description = "Bucket ARN by purpose; known at plan time, ready to be written to when it is used."
  value       = local.bucket_arns
  # A composed value carries no order: who writes to a bucket must find its policy in place.
  depends_on = [aws_s3_bucket_policy.this]
}
