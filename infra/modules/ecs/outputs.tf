output "cluster_name" {
  description = "Cluster."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "Service."
  value       = aws_ecs_service.this.name
}

output "load_balancer_arn" {
  description = "Internal load balancer, the gateway's integration target."
  value       = aws_lb.this.arn
}

output "load_balancer_host" {
  description = "Name that the gateway writes into the request: origin.<domain>, or the load balancer's own."
  value       = var.domain_name == null ? aws_lb.this.dns_name : "origin.${var.domain_name}"
}

output "load_balancer_port" {
  description = "Port of the production listener."
  value       = local.ports["production"]
}

output "load_balancer_suffix" {
  description = "Dimension LoadBalancer of its metrics."
  value       = aws_lb.this.arn_suffix
}

output "target_group_suffixes" {
  description = "Dimension TargetGroup by colour: blue, green."
  value       = { for k, g in aws_lb_target_group.this : k => g.arn_suffix }
}

output "task_family" {
  description = "Task family that releases register revisions of."
  value       = aws_ecs_task_definition.this.family
}

output "task_definition_arn" {
  description = "Newest revision that Terraform wrote."
  value       = aws_ecs_task_definition.this.arn
}

output "release_required" {
  description = "Terraform wrote a revision that no release was made from yet: deploy with the release tool."
  value       = lookup(aws_ecs_service.this.tags_all, "ReleasedRevision", "") != aws_ecs_task_definition.this.arn
}
