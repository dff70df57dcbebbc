output "role_arns" {
  description = "ARN by purpose, known at plan time; the role and its policy exist when it is used."
  value       = local.role_arns
  # A composed value carries no order: who uses a role must find it and its policy in place.
  depends_on = [aws_iam_role.this, aws_iam_role_policy.this]
}

output "service_role_arns" {
  description = "As role_arns; besides, the service may sign in to its database when it is used."
  value       = local.role_arns
  # A composed value carries no order: the service must find its role able to sign in to the database.
  depends_on = [aws_iam_role.this, aws_iam_role_policy.this, aws_iam_role_policy.database_login]
}

output "role_names" {
  description = "Role name by purpose."
  value       = { for k, r in aws_iam_role.this : k => r.name }
}

output "instance_profile_arn" {
  description = "Profile of the EC2 instances; null unless compute is ecs-ec2."
  value       = try(aws_iam_instance_profile.this["instance"].arn, null)
}

output "boundary_arn" {
  description = "Permission boundary of every role of the stack."
  value       = aws_iam_policy.boundary.arn
}
