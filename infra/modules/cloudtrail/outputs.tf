output "trail_arn" {
  description = "Trail."
  value       = aws_cloudtrail.this.arn
}
