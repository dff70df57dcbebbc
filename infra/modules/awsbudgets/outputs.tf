output "budget_name" {
  description = "Budget."
  value       = aws_budgets_budget.this.name
}
