output "topic_arn" {
  description = "Alert topic."
  value       = aws_sns_topic.alerts.arn
  # Who publishes to the topic must find its policy in place.
  depends_on = [aws_sns_topic_policy.alerts]
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

output "undelivered_queue_arn" {
  description = "Queue of events that could not be delivered."
  value       = aws_sqs_queue.undelivered.arn
  # Who sends to the queue must find its policy in place.
  depends_on = [aws_sqs_queue_policy.undelivered]
}

output "alarm_names" {
  description = "Every alarm of this module."
  value = sort(concat(
    [for alarm in aws_cloudwatch_metric_alarm.direct : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.computed : alarm.alarm_name],
    [for alarm in aws_cloudwatch_composite_alarm.page : alarm.alarm_name],
  ))
}

output "log_retention_days" {
  description = "Days that data logs are kept: retention_days, or the next longer period that CloudWatch knows."
  value       = local.data_days
}
