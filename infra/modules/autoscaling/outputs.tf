output "policy_arns" {
  description = "Scaling policy by name."
  value       = { for k, p in aws_appautoscaling_policy.this : k => p.arn }
}
