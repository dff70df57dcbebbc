# Capacity follows the load (PERF-1, PERF-2). Several policies: any of them may add, all must agree to take away.
# Standard metrics are minutes late, so the spike itself is held by the floor (sizing.min_tasks) and by burst.tf.

locals {
  on_ecs   = var.kind == "ecs"
  scalable = local.on_ecs || var.provisioned
  target = local.on_ecs ? {
    namespace = "ecs", dimension = "ecs:service:DesiredCount", resource = "service/${var.cluster_name}/${var.service_name}"
    } : {
    namespace = "lambda", dimension = "lambda:function:ProvisionedConcurrency", resource = "function:${var.function_name}:${var.alias_name}"
  }

  colours = sort(keys(var.target_group_suffixes))
  # Requests a minute and healthy task, over both colours: AWS's own metric is tied to one target group, and releases
  # alternate between two.
  per_task = "IF(${join(" + ", [for c in local.colours : "FILL(hosts_${c}, 0)"])} > 0, (${join(" + ", [for c in local.colours : "FILL(requests_${c}, 0)"])}) / (${join(" + ", [for c in local.colours : "FILL(hosts_${c}, 0)"])}), 0)"
  per_colour = merge([for c in local.colours : {
    "requests_${c}" = { metric = "RequestCount", stat = "Sum", colour = c }
    "hosts_${c}"    = { metric = "HealthyHostCount", stat = "Average", colour = c }
  }]...)

  tracking = local.on_ecs ? {
    cpu      = { predefined = "ECSServiceAverageCPUUtilization", target = var.scaling.cpu_percent, expression = null }
    memory   = { predefined = "ECSServiceAverageMemoryUtilization", target = var.scaling.memory_percent, expression = null }
    requests = { predefined = null, target = 60 * var.scaling.requests_per_task_second, expression = local.per_task }
    } : {
    for name in ["concurrency"] : name => { predefined = "LambdaProvisionedConcurrencyUtilization", target = var.scaling.concurrency_share, expression = null } if var.provisioned
  }
}

resource "aws_appautoscaling_target" "this" {
  for_each = toset(local.scalable ? ["this"] : [])

  service_namespace  = local.target.namespace
  scalable_dimension = local.target.dimension
  resource_id        = local.target.resource
  min_capacity       = var.min_capacity
  max_capacity       = var.max_capacity
  tags               = var.tags
}

resource "aws_appautoscaling_policy" "this" {
  for_each = local.tracking

  name               = "${var.context.name}-${each.key}"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this["this"].service_namespace
  scalable_dimension = aws_appautoscaling_target.this["this"].scalable_dimension
  resource_id        = aws_appautoscaling_target.this["this"].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target
    scale_out_cooldown = 30
    scale_in_cooldown  = 300 # a release, a pause, a lunch hour: what was hard to get is given back slowly

    dynamic "predefined_metric_specification" {
      for_each = each.value.predefined == null ? [] : [each.value.predefined]

      content {
        predefined_metric_type = predefined_metric_specification.value
      }
    }

    dynamic "customized_metric_specification" {
      for_each = each.value.expression == null ? [] : [each.value.expression]

      content {
        metrics {
          id          = "per_task"
          expression  = customized_metric_specification.value
          label       = "Requests a minute and task"
          return_data = true
        }

        dynamic "metrics" {
          for_each = local.per_colour

          content {
            id          = metrics.key
            return_data = false

            metric_stat {
              stat = metrics.value.stat

              metric {
                namespace   = "AWS/ApplicationELB"
                metric_name = metrics.value.metric

                dimensions {
                  name  = "LoadBalancer"
                  value = var.load_balancer_suffix
                }
                dimensions {
                  name  = "TargetGroup"
                  value = var.target_group_suffixes[metrics.value.colour]
                }
              }
            }
          }
        }
      }
    }
  }
}

# Known hours: a floor before the morning comes.
resource "aws_appautoscaling_scheduled_action" "this" {
  for_each = local.scalable ? var.scaling.schedules : {}

  name               = "${var.context.name}-${each.key}"
  service_namespace  = aws_appautoscaling_target.this["this"].service_namespace
  scalable_dimension = aws_appautoscaling_target.this["this"].scalable_dimension
  resource_id        = aws_appautoscaling_target.this["this"].resource_id
  schedule           = "cron(${each.value.cron})"
  timezone           = "Etc/UTC"

  scalable_target_action {
    min_capacity = each.value.min_tasks
    max_capacity = each.value.max_tasks
  }
}
