# The service on Lambda: one image function, its versions, the alias that traffic goes to (API-1, OPS-2, OPS-6, PERF-3).

locals {
  provisioned = var.start == "provisioned"
  snap_start  = var.start == "snapstart"
  # SnapStart keeps at most 512 MB of disk; Lambda as a whole at most 10 GiB.
  ephemeral_mb = local.snap_start ? 512 : min(10, var.sizing.ephemeral_gib) * 1024
}

resource "aws_lambda_function" "service" {
  function_name                  = var.function_name
  description                    = "Modelyard: predictions and their log."
  role                           = var.role_arns["function"]
  package_type                   = "Image"
  image_uri                      = var.image
  architectures                  = [var.sizing.architecture == "ARM64" ? "arm64" : "x86_64"]
  memory_size                    = var.sizing.memory_mb
  timeout                        = 28 # below the gateway's 29 s; the service's own deadline is 25 s, so its error arrives first
  publish                        = true
  reserved_concurrent_executions = coalesce(var.reserved, -1)
  kms_key_arn                    = var.key_arns["secrets"]
  tags                           = var.tags

  # The same image as on ECS; here Lambda's runtime client starts it instead of the server.
  image_config {
    entry_point = ["python", "-m", "awslambdaric"]
    command     = ["modelyard.entry.function.handler"]
  }

  ephemeral_storage {
    size = local.ephemeral_mb
  }

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [var.security_group_ids["function"]]
  }

  tracing_config {
    mode = "Active"
  }

  logging_config {
    log_format = "JSON"
    log_group  = var.log_group_names["service"]
  }

  dynamic "snap_start" {
    for_each = local.snap_start ? ["PublishedVersions"] : []

    content {
      apply_on = snap_start.value
    }
  }

  environment {
    variables = var.environment
  }

  lifecycle {
    ignore_changes = [image_uri] # the release tool publishes versions with its image
    precondition {
      condition     = var.environment["MODELYARD_JOURNAL__DURABILITY"] == "store"
      error_message = "MODELYARD_JOURNAL__DURABILITY must be \"store\" on Lambda: a frozen environment takes its spool with it, so a record must be in the database before the answer leaves (DATA-2)."
    }
    precondition {
      condition     = var.reserved == null || coalesce(var.reserved, 1) >= var.sizing.min_tasks
      error_message = "reserved must be at least sizing.min_tasks: warm environments count against it."
    }
  }
}

# One unknown setting makes the function's whole environment unknown in a first plan. Here the same settings stand value by
# value, so that a plan shows what will run and checks can read it.
resource "terraform_data" "service" {
  input = { image = var.image, environment = var.environment }
}

# Terraform makes the alias and never moves it: CodeDeploy does, between the hook and the alarms.
resource "aws_lambda_alias" "live" {
  name             = var.alias_name
  description      = "What clients reach."
  function_name    = aws_lambda_function.service.function_name
  function_version = aws_lambda_function.service.version

  lifecycle {
    ignore_changes = [function_version, routing_config]
  }
}

# Warm environments. AWS refuses them on an alias with weights, so a release moves one of the two at a time.
resource "aws_lambda_provisioned_concurrency_config" "live" {
  for_each = toset(local.provisioned ? ["this"] : [])

  function_name                     = aws_lambda_function.service.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = var.sizing.min_tasks

  lifecycle {
    ignore_changes = [provisioned_concurrent_executions] # Application Auto Scaling moves it
  }
}
