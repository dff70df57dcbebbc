# Spikes: the service tells every five seconds how many of its permits are in use. Twenty seconds above 80 % double the
# number of tasks, minutes before the standard metrics have seen anything (PERF-2).

locals {
  bursts = toset(local.on_ecs ? ["this"] : [])
}

resource "aws_appautoscaling_policy" "burst" {
  for_each = local.bursts

  name               = "${var.context.name}-burst"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this["this"].service_namespace
  scalable_dimension = aws_appautoscaling_target.this["this"].scalable_dimension
  resource_id        = aws_appautoscaling_target.this["this"].resource_id

  step_scaling_policy_configuration {
    adjustment_type          = "PercentChangeInCapacity"
    min_adjustment_magnitude = 2
    metric_aggregation_type  = "Maximum"
    cooldown                 = 60

    step_adjustment {
      metric_interval_lower_bound = "0"
      scaling_adjustment          = 100
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "burst" {
  for_each = local.bursts

  alarm_name          = "${var.context.name}-burst"
  alarm_description   = "scaling: more than 80 % of the permits are in use; the number of tasks is doubled (PERF-2)"
  namespace           = "Modelyard"
  metric_name         = "Saturation"
  dimensions          = { Environment = var.context.environment }
  statistic           = "Average"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0.8
  period              = 10 # stored each second; ten is the shortest that an alarm may look at
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.burst[each.key].arn]
  tags                = var.tags
}
