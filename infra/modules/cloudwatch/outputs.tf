output "topic_arn" {
  description = "Alert topic."
  value       = aws_sns_topic.alerts.arn
  depends_on  = [aws_sns_topic_policy.alerts]
}

output "log_group_names" {
  description = "Log group by purpose."
  value       = { for k, g in aws_cloudwatch_log_group.this : k => g.name }
}

output "log_group_arns" {
  description = "Log group ARN by purpose, without the suffix :*."
  value       = { for k, g in aws_cloudwatch_log_group.this : k => g.arn }
}

output "dashboard_url" {
  description = "Dashboard of the service."
  value       = "https://${var.context.region}.console.aws.amazon.com/cloudwatch/home?region=${var.context.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.this.dashboard_name}"
}
