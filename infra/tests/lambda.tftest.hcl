# Promise: a version reaches clients only through the alias, moved by a deployment that a hook and alarms can take back.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags               = { Project = "modelyard", Module = "lambda" }
  function_name      = "modelyard-test-service"
  alias_name         = "live"
  hook_name          = "modelyard-test-deploy-hook"
  image              = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/modelyard@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  start              = "provisioned"
  sizing             = { cpu = 2048, memory_mb = 3008, min_tasks = 5, max_tasks = 50, architecture = "ARM64", ephemeral_gib = 40 }
  reserved           = null
  release            = { strategy = "BLUE_GREEN", bake_minutes = 10, step_percent = 10, step_minutes = 5 }
  environment        = { MODELYARD_DATA = "/tmp/modelyard", MODELYARD_HTTP__ROOT_PATH = "/live", MODELYARD_JOURNAL__DURABILITY = "store" }
  objectives         = { availability = 0.999, latency_p95_ms = 1000 }
  subnet_ids         = ["subnet-1", "subnet-2"]
  security_group_ids = { function = "sg-function" }
  role_arns = {
    function    = "arn:aws:iam::123456789012:role/modelyard-test-function"
    codedeploy  = "arn:aws:iam::123456789012:role/modelyard-test-codedeploy"
    deploy_hook = "arn:aws:iam::123456789012:role/modelyard-test-deploy-hook"
  }
  key_arns        = { secrets = "arn:aws:kms:eu-central-1:123456789012:key/s" }
  log_group_names = { service = "/modelyard/test/service", hook = "/aws/lambda/modelyard-test-deploy-hook" }
  topic_arn       = "arn:aws:sns:eu-central-1:123456789012:modelyard-test-alerts"
}

run "image_function_behind_an_alias" {
  command = plan
  module {
    source = "./modules/lambda"
  }

  assert {
    condition     = aws_lambda_function.service.package_type == "Image" && aws_lambda_function.service.image_uri == var.image && aws_lambda_function.service.publish && aws_lambda_function.service.architectures == tolist(["arm64"])
    error_message = "The image by digest, published as versions."
  }
  assert {
    condition     = aws_lambda_function.service.timeout < 29 && aws_lambda_function.service.ephemeral_storage[0].size == 10240
    error_message = "The function's error arrives before the gateway's, and the volume is the largest there is."
  }
  assert {
    condition     = length(aws_lambda_function.service.vpc_config[0].subnet_ids) == 2 && aws_lambda_function.service.kms_key_arn == var.key_arns["secrets"]
    error_message = "In the private subnets, settings encrypted."
  }
  assert {
    condition     = aws_lambda_alias.live.name == "live" && aws_lambda_provisioned_concurrency_config.live["this"].provisioned_concurrent_executions == 5 && aws_lambda_provisioned_concurrency_config.live["this"].qualifier == "live"
    error_message = "Warm environments hang on the alias."
  }
  assert {
    condition     = length(aws_lambda_function.service.snap_start) == 0
    error_message = "SnapStart and warm environments exclude each other."
  }
}

run "releases_are_taken_back" {
  command = plan
  module {
    source = "./modules/lambda"
  }

  assert {
    condition     = aws_codedeploy_deployment_group.this.deployment_config_name == "CodeDeployDefault.LambdaAllAtOnce" && aws_codedeploy_deployment_group.this.deployment_style[0].deployment_type == "BLUE_GREEN" && aws_codedeploy_app.this.compute_platform == "Lambda"
    error_message = "Blue/green by CodeDeploy."
  }
  assert {
    condition     = aws_codedeploy_deployment_group.this.alarm_configuration[0].enabled && length(aws_codedeploy_deployment_group.this.alarm_configuration[0].alarms) == 2 && contains(aws_codedeploy_deployment_group.this.auto_rollback_configuration[0].events, "DEPLOYMENT_STOP_ON_ALARM") && contains(aws_codedeploy_deployment_group.this.auto_rollback_configuration[0].events, "DEPLOYMENT_FAILURE")
    error_message = "An alarm or a failure takes it back."
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.deployment : a.dimensions["Resource"] == "modelyard-test-service:live" && length(a.alarm_actions) == 1])
    error_message = "The alarms watch the alias and speak."
  }
}

run "steps_that_aws_ships" {
  command = plan
  module {
    source = "./modules/lambda"
  }
  variables {
    release = { strategy = "CANARY", bake_minutes = 10, step_percent = 10, step_minutes = 5 }
  }

  assert {
    condition     = aws_codedeploy_deployment_group.this.deployment_config_name == "CodeDeployDefault.LambdaCanary10Percent5Minutes" && length(aws_codedeploy_deployment_config.this) == 0
    error_message = "AWS's own configuration where the figures fit."
  }
}

run "steps_of_our_own" {
  command = plan
  module {
    source = "./modules/lambda"
  }
  variables {
    release = { strategy = "LINEAR", bake_minutes = 10, step_percent = 25, step_minutes = 4 }
  }

  assert {
    condition     = aws_codedeploy_deployment_group.this.deployment_config_name == "modelyard-test-service-linear-25-4" && aws_codedeploy_deployment_config.this["LINEAR-25-4"].traffic_routing_config[0].time_based_linear[0].percentage == 25
    error_message = "Any other figures get a configuration (OPS-6)."
  }
}

run "snapstart" {
  command = plan
  module {
    source = "./modules/lambda"
  }
  variables {
    start = "snapstart"
  }

  assert {
    condition     = aws_lambda_function.service.snap_start[0].apply_on == "PublishedVersions" && aws_lambda_function.service.ephemeral_storage[0].size == 512 && length(aws_lambda_provisioned_concurrency_config.live) == 0
    error_message = "SnapStart takes 512 MB of disk at most, and no warm environments."
  }
}

run "refuses_a_spool_that_dies" {
  command = plan
  module {
    source = "./modules/lambda"
  }
  variables {
    environment = { MODELYARD_DATA = "/tmp/modelyard", MODELYARD_HTTP__ROOT_PATH = "/live", MODELYARD_JOURNAL__DURABILITY = "process" }
  }
  expect_failures = [aws_lambda_function.service]
}

run "refuses_fewer_environments_than_are_warm" {
  command = plan
  module {
    source = "./modules/lambda"
  }
  variables {
    reserved = 2
  }
  expect_failures = [aws_lambda_function.service]
}

run "refuses_an_image_by_tag_and_unknown_words" {
  command = plan
  module {
    source = "./modules/lambda"
  }
  variables {
    image   = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/modelyard:latest"
    start   = "cold"
    release = { strategy = "ROLLING", bake_minutes = 10, step_percent = 10, step_minutes = 5 }
  }
  expect_failures = [var.image, var.start, var.release]
}
