output "policy_arns" {
  description = "Scaling policy by name."
  value       = merge({ for k, p in aws_appautoscaling_policy.this : k => p.arn }, { for k, p in aws_appautoscaling_policy.burst : "burst" => p.arn })
}
