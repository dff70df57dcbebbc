output "capacity_provider_name" {
  description = "Capacity provider of the instances; null on Fargate and Lambda."
  value       = try(aws_ecs_capacity_provider.this["ec2"].name, null)
}

output "autoscaling_group_name" {
  description = "Group of the instances; null on Fargate and Lambda."
  value       = try(aws_autoscaling_group.this["ec2"].name, null)
}
