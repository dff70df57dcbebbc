# Only compute = "ecs-ec2". Instances keep images cached and some wait prepared: this branch holds PERF-3 (under 30 s).

locals {
  name     = "${var.context.name}-instances"
  capacity = var.capacity ? toset(["ec2"]) : toset([])
}

# Bottlerocket: read-only system without a shell or SSH. The parameter is resolved when the template is used, so a new
# instance gets the newest image and no plan changes because AWS published one.
locals {
  machine_image = "resolve:ssm:/aws/service/bottlerocket/aws-ecs-2/${var.architecture == "ARM64" ? "arm64" : "x86_64"}/latest/image_id"
}

resource "aws_launch_template" "this" {
  for_each = local.capacity

  name                   = local.name
  description            = "ECS instances: encrypted, IMDSv2, no public address, no key pair"
  image_id               = local.machine_image
  instance_type          = var.ec2.instance_type
  update_default_version = true
  ebs_optimized          = true
  tags                   = var.tags

  user_data = base64encode(<<-TOML
    [settings.ecs]
    cluster = "${var.cluster_name}"
    image-pull-behavior = "prefer-cached"
    allow-privileged-containers = false
    enable-spot-instance-draining = true
    [settings.autoscaling]
    should-wait = true
  TOML
  )

  iam_instance_profile {
    arn = var.instance_profile_arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  network_interfaces {
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [var.security_group_id]
  }

  # Bottlerocket's system, and its volume for images and task data.
  dynamic "block_device_mappings" {
    for_each = { "/dev/xvda" = 4, "/dev/xvdb" = 20 + var.ephemeral_gib }

    content {
      device_name = block_device_mappings.key

      ebs {
        volume_type           = "gp3"
        volume_size           = block_device_mappings.value
        encrypted             = true
        kms_key_id            = var.key_arn
        delete_on_termination = true
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = local.name })
    }
  }
}

resource "aws_autoscaling_group" "this" {
  for_each = local.capacity

  name                      = local.name
  min_size                  = var.min_instances
  max_size                  = var.ec2.max_instances
  vpc_zone_identifier       = var.subnet_ids
  health_check_type         = "EC2"
  health_check_grace_period = 60
  default_instance_warmup   = 60
  protect_from_scale_in     = true
  force_delete              = !var.deletion_protection
  max_instance_lifetime     = 14 * 24 * 3600
  # ECS's managed scaling owns the number; metrics in one-minute steps cost nothing here.
  enabled_metrics = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupTotalInstances", "WarmPoolWarmedCapacity"]

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  dynamic "warm_pool" {
    for_each = var.ec2.warm > 0 ? { stopped = var.ec2.warm } : {}

    content {
      pool_state = "Stopped"
      min_size   = warm_pool.value
    }
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
    }
  }

  # Provider-wide tags don't reach instances that the group starts.
  dynamic "tag" {
    for_each = merge(var.tags, { Name = local.name, AmazonECSManaged = "true" })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    ignore_changes = [desired_capacity]

    precondition {
      condition     = var.ec2.max_instances >= var.min_instances
      error_message = "ec2.max_instances must be at least ${var.min_instances}, the fewest instances that this stack keeps."
    }
  }
}

resource "aws_ecs_capacity_provider" "this" {
  for_each = local.capacity

  name = local.name
  tags = var.tags

  auto_scaling_group_provider {
    auto_scaling_group_arn         = aws_autoscaling_group.this[each.key].arn
    managed_termination_protection = "ENABLED"
    managed_draining               = "ENABLED"

    managed_scaling {
      status                    = "ENABLED"
      target_capacity           = 80
      instance_warmup_period    = 60
      minimum_scaling_step_size = 1
      maximum_scaling_step_size = 10
    }
  }
}
