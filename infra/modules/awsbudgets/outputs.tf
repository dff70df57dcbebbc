output "budget_name" {
  description = "Budget."
  value       = aws_budgets_budget.this.name
}

output "anomaly_monitor_arn" {
  description = "Monitor of unusual cost; null where the account has one already."
  value       = try(aws_ce_anomaly_monitor.services["this"].arn, null)
}
