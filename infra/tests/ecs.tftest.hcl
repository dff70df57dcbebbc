# Promise: a release reaches clients only after a test, under alarms that take it back, and nothing in a task can be changed.
# Identifiers that AWS would give: some promises are about them.
mock_provider "aws" {
  override_resource {
    target          = aws_lb.this
    override_during = plan
    values = {
      arn        = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/modelyard-test/1"
      dns_name   = "internal-modelyard-test.elb.amazonaws.com"
      arn_suffix = "app/modelyard-test/1"
    }
  }
  override_resource {
    target          = aws_lb_target_group.this["blue"]
    override_during = plan
    values = {
      arn        = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/modelyard-test-blue/1"
      arn_suffix = "targetgroup/modelyard-test-blue/1"
    }
  }
  override_resource {
    target          = aws_lb_target_group.this["green"]
    override_during = plan
    values = {
      arn        = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/modelyard-test-green/1"
      arn_suffix = "targetgroup/modelyard-test-green/1"
    }
  }
  override_resource {
    target          = aws_lb_listener.this["production"]
    override_during = plan
    values = {
      arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/modelyard-test/1/production"
    }
  }
  override_resource {
    target          = aws_lb_listener.this["test"]
    override_during = plan
    values = {
      arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener/app/modelyard-test/1/test"
    }
  }
  override_resource {
    target          = aws_lb_listener_rule.this["production"]
    override_during = plan
    values = {
      arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener-rule/app/modelyard-test/1/production/1"
    }
  }
  override_resource {
    target          = aws_lb_listener_rule.this["test"]
    override_during = plan
    values = {
      arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener-rule/app/modelyard-test/1/test/1"
    }
  }
  override_resource {
    target          = aws_ecs_task_definition.this
    override_during = plan
    values = {
      arn = "arn:aws:ecs:eu-central-1:123456789012:task-definition/modelyard-test-service:1"
    }
  }
}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags               = { Project = "modelyard", Module = "ecs" }
  cluster_name       = "modelyard-test"
  service_name       = "modelyard-test-service"
  hook_name          = "modelyard-test-deploy-hook"
  image              = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/modelyard@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  launch             = "fargate"
  capacity_provider  = null
  sizing             = { cpu = 2048, memory_mb = 4096, min_tasks = 2, max_tasks = 10, architecture = "ARM64", ephemeral_gib = 40 }
  release            = { strategy = "BLUE_GREEN", bake_minutes = 10, step_percent = 10, step_minutes = 5 }
  environment        = { MODELYARD_DATA = "/var/lib/modelyard", MODELYARD_AUTH__ADMIN_KEY = "aws-sm://arn:aws:secretsmanager:eu-central-1:123456789012:secret:x" }
  objectives         = { availability = 0.999, latency_p95_ms = 1000 }
  domain_name        = "api.example.com"
  certificate_arn    = "arn:aws:acm:eu-central-1:123456789012:certificate/c"
  vpc_id             = "vpc-1"
  subnet_ids         = ["subnet-1", "subnet-2", "subnet-3"]
  security_group_ids = { load_balancer = "sg-lb", service = "sg-service", hook = "sg-hook" }
  role_arns = {
    execution          = "arn:aws:iam::123456789012:role/modelyard-test-execution"
    task               = "arn:aws:iam::123456789012:role/modelyard-test-task"
    ecs_infrastructure = "arn:aws:iam::123456789012:role/modelyard-test-ecs-infrastructure"
    hook_invoker       = "arn:aws:iam::123456789012:role/modelyard-test-hook-invoker"
    deploy_hook        = "arn:aws:iam::123456789012:role/modelyard-test-deploy-hook"
  }
  key_arns            = { logs = "arn:aws:kms:eu-central-1:123456789012:key/l", volumes = "arn:aws:kms:eu-central-1:123456789012:key/v", secrets = "arn:aws:kms:eu-central-1:123456789012:key/s" }
  log_bucket          = "modelyard-test-logs"
  log_group_names     = { service = "/modelyard/test/service", hook = "/aws/lambda/modelyard-test-deploy-hook" }
  topic_arn           = "arn:aws:sns:eu-central-1:123456789012:modelyard-test-alerts"
  deletion_protection = true
}

run "blue_green_with_test_and_rollback" {
  command = plan
  module {
    source = "./modules/ecs"
  }

  assert {
    condition     = aws_ecs_service.this.deployment_configuration[0].strategy == "BLUE_GREEN" && aws_ecs_service.this.deployment_configuration[0].bake_time_in_minutes == "10"
    error_message = "Native blue/green with a bake time."
  }
  assert {
    condition     = one(aws_ecs_service.this.deployment_configuration[0].lifecycle_hook).lifecycle_stages == tolist(["POST_TEST_TRAFFIC_SHIFT"]) && endswith(one(aws_ecs_service.this.deployment_configuration[0].lifecycle_hook).hook_target_arn, ":function:modelyard-test-deploy-hook")
    error_message = "The hook is asked when the test listener leads to green."
  }
  assert {
    condition     = one(one(aws_ecs_service.this.load_balancer).advanced_configuration).alternate_target_group_arn == aws_lb_target_group.this["green"].arn && one(one(aws_ecs_service.this.load_balancer).advanced_configuration).test_listener_rule == aws_lb_listener_rule.this["test"].arn && one(one(aws_ecs_service.this.load_balancer).advanced_configuration).production_listener_rule == aws_lb_listener_rule.this["production"].arn
    error_message = "Two colours, a rule for production and one for the test."
  }
  assert {
    condition     = aws_ecs_service.this.deployment_circuit_breaker[0].rollback && aws_ecs_service.this.alarms[0].enable && aws_ecs_service.this.alarms[0].rollback && length(aws_ecs_service.this.alarms[0].alarm_names) == 2
    error_message = "A release that fails or raises an alarm is taken back."
  }
  assert {
    condition     = toset([for t in one(one(aws_lb_listener_rule.this["production"].action).forward).target_group : t.weight]) == toset([0, 100])
    error_message = "At first all traffic goes to blue, and the rule only forwards."
  }
}

run "tasks_cannot_be_changed" {
  command = plan
  module {
    source = "./modules/ecs"
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].readonlyRootFilesystem && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].user == "10001" && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"]
    error_message = "Read-only root, not root, no capability."
  }
  assert {
    condition     = endswith(jsondecode(aws_ecs_task_definition.this.container_definitions)[0].image, "@${split("@", var.image)[1]}")
    error_message = "The image is named by digest."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].stopTimeout == 120 && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].logConfiguration.options.mode == "non-blocking"
    error_message = "Time to drain the spool, and logs that never block."
  }
  assert {
    condition     = alltrue([for e in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment : startswith(e.value, "aws-sm://") if endswith(e.name, "ADMIN_KEY")])
    error_message = "Secrets are references."
  }
  assert {
    condition     = aws_ecs_task_definition.this.skip_destroy && !aws_ecs_task_definition.this.track_latest && aws_ecs_task_definition.this.ephemeral_storage[0].size_in_gib == 40
    error_message = "Old revisions stay for rollbacks, a release's revisions are not Terraform's."
  }
  assert {
    condition     = !aws_ecs_service.this.enable_execute_command && !aws_ecs_service.this.network_configuration[0].assign_public_ip
    error_message = "No shell in a task, no public address."
  }
  assert {
    condition     = terraform_data.service.input.image == var.image
    error_message = "A plan shows the container value by value."
  }
}

run "the_way_in_is_private_tls" {
  command = plan
  module {
    source = "./modules/ecs"
  }

  assert {
    condition     = aws_lb.this.internal && aws_lb.this.drop_invalid_header_fields && aws_lb.this.desync_mitigation_mode == "strictest" && aws_lb.this.enable_deletion_protection && aws_lb.this.access_logs[0].enabled
    error_message = "Internal, strict, protected, logged."
  }
  assert {
    condition     = alltrue([for l in aws_lb_listener.this : l.protocol == "HTTPS" && l.ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06"]) && aws_lb_listener.this["production"].port == 443 && aws_lb_listener.this["test"].port == 8443
    error_message = "TLS 1.2 at least on both listeners."
  }
  assert {
    condition     = alltrue([for g in aws_lb_target_group.this : g.protocol == "HTTPS" && g.health_check[0].path == "/v2/health/ready" && g.health_check[0].interval == 5 && g.health_check[0].healthy_threshold == 2])
    error_message = "TLS to the task, and ready within ten seconds of being so."
  }
  assert {
    condition     = output.load_balancer_host == "origin.api.example.com" && output.load_balancer_port == 443
    error_message = "The gateway checks the certificate against origin.<domain>."
  }
}

run "canary" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    release = { strategy = "CANARY", bake_minutes = 10, step_percent = 5, step_minutes = 7 }
  }

  assert {
    condition     = aws_ecs_service.this.deployment_configuration[0].canary_configuration[0].canary_percent == 5 && aws_ecs_service.this.deployment_configuration[0].canary_configuration[0].canary_bake_time_in_minutes == "7" && length(aws_ecs_service.this.deployment_configuration[0].linear_configuration) == 0
    error_message = "One small step first (OPS-6)."
  }
}

run "linear" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    release = { strategy = "LINEAR", bake_minutes = 10, step_percent = 20, step_minutes = 3 }
  }

  assert {
    condition     = aws_ecs_service.this.deployment_configuration[0].linear_configuration[0].step_percent == 20 && length(aws_ecs_service.this.deployment_configuration[0].canary_configuration) == 0
    error_message = "Equal steps (OPS-6)."
  }
}

run "on_instances_without_a_domain" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    launch            = "ec2"
    capacity_provider = "modelyard-test-ec2"
    domain_name       = null
    certificate_arn   = null
  }

  assert {
    condition     = one(aws_ecs_service.this.capacity_provider_strategy).capacity_provider == "modelyard-test-ec2" && aws_ecs_task_definition.this.requires_compatibilities == toset(["EC2"]) && length(aws_ecs_task_definition.this.ephemeral_storage) == 0
    error_message = "On the instances' own capacity."
  }
  assert {
    condition     = alltrue([for l in aws_lb_listener.this : l.protocol == "HTTP"]) && aws_lb_listener.this["test"].port == 8080 && aws_lambda_function.deploy_hook.environment[0].variables["SCHEME"] == "http"
    error_message = "Without a domain there is no certificate; the stack names the deviation."
  }
}

run "refuses_an_image_by_tag" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/modelyard:latest"
  }
  expect_failures = [var.image]
}

run "refuses_instances_without_a_provider" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    launch = "ec2"
  }
  expect_failures = [aws_ecs_cluster_capacity_providers.this]
}

run "refuses_one_zone" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    subnet_ids = ["subnet-1"]
  }
  expect_failures = [aws_ecs_service.this]
}

run "refuses_one_role_for_everything" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    role_arns = { execution = "arn:aws:iam::123456789012:role/one", task = "arn:aws:iam::123456789012:role/one", ecs_infrastructure = "arn:aws:iam::123456789012:role/i", hook_invoker = "arn:aws:iam::123456789012:role/h", deploy_hook = "arn:aws:iam::123456789012:role/d" }
  }
  expect_failures = [aws_ecs_task_definition.this]
}

run "refuses_an_unknown_strategy_and_launch" {
  command = plan
  module {
    source = "./modules/ecs"
  }
  variables {
    launch  = "outposts"
    release = { strategy = "ROLLING", bake_minutes = 10, step_percent = 10, step_minutes = 5 }
  }
  expect_failures = [var.launch, var.release]
}
