output "trail_arn" {
  description = "Trail."
  value       = aws_cloudtrail.this.arn
}

output "alarm_names" {
  description = "Change alarms."
  value       = sort([for alarm in aws_cloudwatch_metric_alarm.change : alarm.alarm_name])
}

output "detector_id" {
  description = "GuardDuty's detector; null where another stack made it, or none is wanted."
  value       = try(aws_guardduty_detector.this["this"].id, null)
}

output "recorder_name" {
  description = "Config's recorder; null where another stack made it, or none is wanted."
  value       = try(aws_config_configuration_recorder.this["this"].name, null)
}
