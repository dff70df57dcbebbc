output "function_name" {
  description = "Function."
  value       = aws_lambda_function.service.function_name
}

output "function_version" {
  description = "Newest version that Terraform published."
  value       = aws_lambda_function.service.version
}

output "alias_name" {
  description = "Alias that traffic goes to; its warm environments exist when it is used."
  value       = aws_lambda_alias.live.name
  # Scaling moves warm environments, so they must be there first.
  depends_on = [aws_lambda_provisioned_concurrency_config.live]
}

output "alias_arn" {
  description = "ARN of the alias."
  value       = aws_lambda_alias.live.arn
}

output "deployment_app" {
  description = "CodeDeploy application."
  value       = aws_codedeploy_app.this.name
}

output "deployment_group" {
  description = "CodeDeploy deployment group."
  value       = aws_codedeploy_deployment_group.this.deployment_group_name
}

output "release_required" {
  description = "The alias points to another version than Terraform's newest."
  value       = aws_lambda_alias.live.function_version != aws_lambda_function.service.version
}
