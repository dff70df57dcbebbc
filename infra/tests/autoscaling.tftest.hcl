# Promise: capacity follows the load up within seconds and down slowly, over both colours.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags          = { Project = "modelyard", Module = "autoscaling" }
  kind          = "ecs"
  cluster_name  = "modelyard-test"
  service_name  = "modelyard-test-service"
  function_name = ""
  alias_name    = ""
  provisioned   = true
  min_capacity  = 2
  max_capacity  = 10
  scaling = {
    cpu_percent              = 50
    memory_percent           = 70
    requests_per_task_second = 50
    concurrency_share        = 0.7
    schedules                = { morning = { cron = "0 6 ? * MON-FRI *", min_tasks = 4, max_tasks = 20 } }
  }
  load_balancer_suffix  = "app/modelyard-test/1"
  target_group_suffixes = { blue = "targetgroup/modelyard-test-blue/1", green = "targetgroup/modelyard-test-green/1" }
}

run "cpu_and_memory_and_requests" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }

  assert {
    condition     = keys(aws_appautoscaling_policy.this) == ["cpu", "memory", "requests"]
    error_message = "CPU and memory are policies (PERF-1), and requests."
  }
  assert {
    condition     = aws_appautoscaling_policy.this["cpu"].target_tracking_scaling_policy_configuration[0].target_value == 50 && aws_appautoscaling_policy.this["memory"].target_tracking_scaling_policy_configuration[0].target_value == 70
    error_message = "At the targets that were asked for."
  }
  assert {
    condition     = length([for m in aws_appautoscaling_policy.this["requests"].target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metrics : m if m.id != "per_task"]) == 4
    error_message = "Requests are counted over both colours: releases alternate between them."
  }
  assert {
    condition     = aws_appautoscaling_target.this["this"].min_capacity == 2 && aws_appautoscaling_target.this["this"].max_capacity == 10 && aws_appautoscaling_target.this["this"].resource_id == "service/modelyard-test/modelyard-test-service"
    error_message = "Floor and ceiling."
  }
  assert {
    condition     = aws_appautoscaling_scheduled_action.this["morning"].schedule == "cron(0 6 ? * MON-FRI *)" && aws_appautoscaling_scheduled_action.this["morning"].scalable_target_action[0].min_capacity == "4"
    error_message = "Known hours raise the floor."
  }
}

run "a_spike_doubles_the_tasks" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.burst["this"].period == 10 && aws_cloudwatch_metric_alarm.burst["this"].metric_name == "Saturation" && aws_cloudwatch_metric_alarm.burst["this"].evaluation_periods == 2
    error_message = "The burst alarm looks every ten seconds at the service's own saturation."
  }
  assert {
    condition     = one(aws_appautoscaling_policy.burst["this"].step_scaling_policy_configuration[0].step_adjustment[*]).scaling_adjustment == 100 && aws_appautoscaling_policy.burst["this"].step_scaling_policy_configuration[0].adjustment_type == "PercentChangeInCapacity"
    error_message = "It doubles the number of tasks."
  }
}

run "lambda_keeps_warm" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }
  variables {
    kind                  = "lambda"
    function_name         = "modelyard-test-service"
    alias_name            = "live"
    load_balancer_suffix  = ""
    target_group_suffixes = {}
  }

  assert {
    condition     = aws_appautoscaling_policy.this["concurrency"].target_tracking_scaling_policy_configuration[0].target_value == 0.7 && aws_appautoscaling_target.this["this"].resource_id == "function:modelyard-test-service:live"
    error_message = "Warm environments follow their use."
  }
  assert {
    condition     = length(aws_appautoscaling_policy.burst) == 0
    error_message = "Beyond the warm ones Lambda scales by itself."
  }
}

run "nothing_to_scale_without_warm_environments" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }
  variables {
    kind                  = "lambda"
    provisioned           = false
    load_balancer_suffix  = ""
    target_group_suffixes = {}
  }

  assert {
    condition     = length(aws_appautoscaling_target.this) == 0 && length(aws_appautoscaling_policy.this) == 0 && length(aws_appautoscaling_scheduled_action.this) == 0
    error_message = "On demand nothing is registered."
  }
}

run "refuses_a_ceiling_below_the_floor" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }
  variables {
    max_capacity = 1
  }
  expect_failures = [var.max_capacity]
}

run "refuses_a_floor_of_nothing" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }
  variables {
    min_capacity = 0
  }
  expect_failures = [var.min_capacity]
}

run "refuses_an_unknown_kind" {
  command = plan
  module {
    source = "./modules/autoscaling"
  }
  variables {
    kind = "cluster"
  }
  expect_failures = [var.kind]
}
