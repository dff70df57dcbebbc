# The service and its releases. ECS swaps the colours and moves the weights itself, and the release tool owns the image, so
# Terraform looks away from both (docs/decisions/infra-0001 and infra-0201).

resource "aws_ecs_service" "this" {
  name                               = var.service_name
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.this.arn
  desired_count                      = var.sizing.min_tasks
  platform_version                   = local.on_fargate ? "LATEST" : null
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  health_check_grace_period_seconds  = 60
  availability_zone_rebalancing      = "ENABLED"
  enable_execute_command             = false
  enable_ecs_managed_tags            = true
  propagate_tags                     = "SERVICE"
  # Terraform doesn't wait for tasks: a service that can't start yet (its database user or first key is still missing) would
  # hold the apply for half an hour and leave the service tainted. Alarms, circuit breaker and release tool watch it.
  wait_for_steady_state = false
  # The release tool moves this tag to the revision it was made from; see output release_required.
  tags = merge(var.tags, { ReleasedRevision = aws_ecs_task_definition.this.arn })

  capacity_provider_strategy {
    capacity_provider = local.on_fargate ? "FARGATE" : var.capacity_provider
    weight            = 100
    base              = 1
  }

  deployment_controller {
    type = "ECS"
  }

  deployment_configuration {
    strategy             = var.release.strategy
    bake_time_in_minutes = tostring(var.release.bake_minutes)

    dynamic "canary_configuration" {
      for_each = var.release.strategy == "CANARY" ? [var.release] : []

      content {
        canary_percent              = canary_configuration.value.step_percent
        canary_bake_time_in_minutes = tostring(canary_configuration.value.step_minutes)
      }
    }

    dynamic "linear_configuration" {
      for_each = var.release.strategy == "LINEAR" ? [var.release] : []

      content {
        step_percent              = linear_configuration.value.step_percent
        step_bake_time_in_minutes = tostring(linear_configuration.value.step_minutes)
      }
    }

    lifecycle_hook {
      hook_target_arn  = local.hook_arn
      role_arn         = var.role_arns["hook_invoker"]
      lifecycle_stages = ["POST_TEST_TRAFFIC_SHIFT"]
    }
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  alarms {
    alarm_names = [for alarm in aws_cloudwatch_metric_alarm.deployment : alarm.alarm_name]
    enable      = true
    rollback    = true
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this["blue"].arn
    container_name   = local.container.name
    container_port   = 8443

    advanced_configuration {
      alternate_target_group_arn = aws_lb_target_group.this["green"].arn
      production_listener_rule   = aws_lb_listener_rule.this["production"].arn
      test_listener_rule         = aws_lb_listener_rule.this["test"].arn
      role_arn                   = var.role_arns["ecs_infrastructure"]
    }
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_ids["service"]]
    assign_public_ip = false
  }

  # Scale-up of green, the hook and the bake time, and as much again for a rollback.
  timeouts {
    create = "${30 + 2 * var.release.bake_minutes}m"
    update = "${30 + 2 * var.release.bake_minutes}m"
    delete = "30m"
  }

  lifecycle {
    ignore_changes = [
      desired_count,   # Application Auto Scaling moves it
      task_definition, # the release tool registers revisions with its image
      load_balancer,   # ECS swaps the two groups with every release
      tags["ReleasedRevision"],
      tags_all["ReleasedRevision"],
    ]
    precondition {
      condition     = length(var.subnet_ids) >= 2
      error_message = "subnet_ids needs at least two subnets in different zones: one zone can't give 99.9 % (PERF-5)."
    }
  }

  # The cluster must know the provider, and the hook must exist, before the first deployment asks for them.
  depends_on = [aws_ecs_cluster_capacity_providers.this, aws_lambda_function.deploy_hook]
}

# Alarms that stop a deployment exist before the service. They watch the load balancer, not one colour: the groups alternate.
resource "aws_cloudwatch_metric_alarm" "deployment" {
  for_each = {
    deploy-errors = {
      says       = "too many answers of the service are 5xx: a running deployment is rolled back"
      expression = "IF(requests >= 20, 100 * errors / requests, 0)"
      threshold  = 14.4 * 100 * (1 - var.objectives.availability)
      metrics    = { errors = { name = "HTTPCode_Target_5XX_Count", stat = "Sum" }, requests = { name = "RequestCount", stat = "Sum" } }
    }
    deploy-latency = {
      says       = "p95 of the service is above the objective: a running deployment is rolled back"
      expression = "IF(requests >= 20, 1000 * latency, 0)"
      threshold  = var.objectives.latency_p95_ms
      metrics    = { latency = { name = "TargetResponseTime", stat = "p95" }, requests = { name = "RequestCount", stat = "Sum" } }
    }
  }

  alarm_name          = "${var.context.name}-${each.key}"
  alarm_description   = "release: ${each.value.says} (OPS-2)"
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = 3
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.topic_arn]
  tags                = var.tags

  metric_query {
    id          = "result"
    expression  = each.value.expression
    label       = each.key
    return_data = true
  }

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value.name
        dimensions  = { LoadBalancer = aws_lb.this.arn_suffix }
        stat        = metric_query.value.stat
        period      = 60
      }
    }
  }
}
