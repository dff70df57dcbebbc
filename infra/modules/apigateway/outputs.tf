output "invoke_url" {
  description = "Where clients call."
  value       = var.domain == null ? aws_api_gateway_stage.this.invoke_url : "https://${var.domain.name}"
}

output "api_id" {
  description = "REST API."
  value       = aws_api_gateway_rest_api.this.id
}

output "stage_name" {
  description = "Stage."
  value       = aws_api_gateway_stage.this.stage_name
}

output "usage_plan_ids" {
  description = "Usage plan by tier."
  value       = { for k, p in aws_api_gateway_usage_plan.this : k => p.id }
}

output "web_acl_arn" {
  description = "Firewall of the stage."
  value       = aws_wafv2_web_acl.this.arn
}

output "key_sync_function_name" {
  description = "Function that writes gateway keys."
  value       = aws_lambda_function.key_sync.function_name
}
