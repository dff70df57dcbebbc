# The service on ECS: cluster, task, service with native blue/green (API-6, OPS-2, OPS-6, PERF-2, PERF-3).

locals {
  tls         = var.domain_name != null
  ports       = local.tls ? { production = 443, test = 8443 } : { production = 80, test = 8080 }
  colours     = toset(["blue", "green"])
  on_fargate  = var.launch == "fargate"
  service_arn = "arn:${var.context.partition}:ecs:${var.context.region}:${var.context.account_id}:service/${var.cluster_name}/${var.service_name}"
  hook_arn    = "arn:${var.context.partition}:lambda:${var.context.region}:${var.context.account_id}:function:${var.hook_name}"

  # The container speaks TLS with a certificate of its own making; AWS_REGION is set by Fargate but not on instances.
  settings = merge(var.environment, {
    AWS_REGION           = var.context.region
    MODELYARD_HTTP__HOST = "0.0.0.0"
    MODELYARD_HTTP__PORT = "8443"
    MODELYARD_HTTP__TLS  = "self-signed"
  })
  # Written paths of a container whose root can't be written; the image declares both as volumes owned by the user.
  written = { data = var.environment["MODELYARD_DATA"], tmp = "/tmp" }
  # Live, not ready: a task whose database is away must answer 503 and wait, not be restarted for ever.
  probe = "import ssl,urllib.request as r;r.urlopen('https://127.0.0.1:8443/v2/health/live',timeout=3,context=ssl._create_unverified_context())"

  container = {
    name                   = "modelyard"
    image                  = var.image
    essential              = true
    user                   = "10001"
    readonlyRootFilesystem = true
    privileged             = false
    stopTimeout            = 120 # the drain's bound: records in the spool reach the database before the disk goes
    portMappings           = [{ name = "https", containerPort = 8443, hostPort = 8443, protocol = "tcp" }]
    environment            = [for key in sort(keys(local.settings)) : { name = key, value = local.settings[key] }]
    mountPoints            = [for name in sort(keys(local.written)) : { sourceVolume = name, containerPath = local.written[name], readOnly = false }]
    volumesFrom            = []
    systemControls         = []
    linuxParameters        = { initProcessEnabled = true, capabilities = { add = [], drop = ["ALL"] } }
    ulimits                = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    healthCheck            = { command = ["CMD", "python", "-c", local.probe], interval = 10, timeout = 5, retries = 3, startPeriod = 60 }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = var.log_group_names["service"]
        awslogs-region        = var.context.region
        awslogs-stream-prefix = "task"
        # A slow log service must not slow predictions; what the buffer can't hold is dropped and counted by ECS.
        mode            = "non-blocking"
        max-buffer-size = "25m"
      }
    }
  }
}

resource "aws_ecs_cluster" "this" {
  name = var.cluster_name
  tags = var.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }

  configuration {
    # Nobody opens a shell in a task (enable_execute_command is off); should it ever be switched on, it is logged.
    execute_command_configuration {
      kms_key_id = var.key_arns["logs"]
      logging    = "OVERRIDE"

      log_configuration {
        cloud_watch_encryption_enabled = true
        cloud_watch_log_group_name     = var.log_group_names["service"]
      }
    }

    managed_storage_configuration {
      fargate_ephemeral_storage_kms_key_id = var.key_arns["volumes"]
    }
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = [local.on_fargate ? "FARGATE" : var.capacity_provider]

  default_capacity_provider_strategy {
    capacity_provider = local.on_fargate ? "FARGATE" : var.capacity_provider
    weight            = 100
    base              = 1
  }

  lifecycle {
    precondition {
      condition     = local.on_fargate || var.capacity_provider != null
      error_message = "launch = \"ec2\" needs capacity_provider, the name of the capacity provider of the instances."
    }
  }
}

# container_definitions is one string, and one unknown setting makes all of it unknown in a first plan. Here the same
# container stands value by value, so that a plan shows what will run and checks can read it.
resource "terraform_data" "service" {
  input = local.container
}

# Terraform writes the shape of a task; a release puts another image into it and registers the result (see release_required).
resource "aws_ecs_task_definition" "this" {
  family                   = var.service_name
  requires_compatibilities = [local.on_fargate ? "FARGATE" : "EC2"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.sizing.cpu)
  memory                   = tostring(var.sizing.memory_mb)
  execution_role_arn       = var.role_arns["execution"]
  task_role_arn            = var.role_arns["task"]
  container_definitions    = jsonencode([local.container])
  # Older revisions stay, for rollbacks; and the revision that a release registered is none of Terraform's.
  skip_destroy = true
  track_latest = false
  tags         = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.sizing.architecture
  }

  dynamic "ephemeral_storage" {
    for_each = local.on_fargate ? [var.sizing.ephemeral_gib] : []

    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  dynamic "volume" {
    for_each = local.written

    content {
      name = volume.key
    }
  }

  lifecycle {
    precondition {
      condition     = var.role_arns["execution"] != var.role_arns["task"]
      error_message = "role_arns: execution and task must be two roles: the first pulls images and writes logs, the second is what the service itself may do."
    }
  }
}
