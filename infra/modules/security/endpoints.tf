# AWS interfaces without a way to the internet. Each endpoint lets only this account in, and only to what the stack uses:
# a stolen credential of another account can't carry data out through it.

locals {
  arn        = "arn:${var.context.partition}"
  own        = { StringEquals = { "aws:PrincipalAccount" = var.context.account_id } }
  region_own = "${var.context.region}:${var.context.account_id}"

  gateway_policies = {
    s3 = [
      {
        Sid       = "OwnBuckets"
        Effect    = "Allow"
        Principal = { AWS = "*" }
        Action = [
          "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation",
          "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:GetObjectTagging", "s3:PutObjectTagging",
        ]
        Resource  = flatten([for b in ["artifacts"] : ["${local.arn}:s3:::${var.buckets[b]}", "${local.arn}:s3:::${var.buckets[b]}/*"]])
        Condition = local.own
      },
      {
        # Image layers lie in a bucket of AWS and come by signed links of ECR, not by the caller's own permissions.
        Sid       = "ImageLayers"
        Effect    = "Allow"
        Principal = { AWS = "*" }
        Action    = ["s3:GetObject"]
        Resource  = ["${local.arn}:s3:::prod-${var.context.region}-starport-layer-bucket/*"]
      },
    ]
    dynamodb = [{
      Sid       = "OwnTables"
      Effect    = "Allow"
      Principal = { AWS = "*" }
      Action = [
        "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
        "dynamodb:BatchWriteItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:ConditionCheckItem", "dynamodb:DescribeTable",
      ]
      Resource  = ["${local.arn}:dynamodb:${local.region_own}:table/${local.name}-*"]
      Condition = local.own
    }]
  }

  interface_statements = {
    "ecr.api" = { actions = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"], resources = [var.repository_arn] }
    "ecr.dkr" = { actions = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"], resources = [var.repository_arn] }
    logs = {
      actions   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      resources = [for group in values(var.log_groups) : "${local.arn}:logs:${local.region_own}:log-group:${group}:*"]
    }
    secretsmanager = {
      actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
      resources = ["${local.arn}:secretsmanager:${local.region_own}:secret:${local.name}/*"]
    }
    ecs           = { actions = local.agent_actions, resources = local.agent_resources }
    ecs-agent     = { actions = local.agent_actions, resources = local.agent_resources }
    ecs-telemetry = { actions = local.agent_actions, resources = local.agent_resources }
  }
  agent_actions = [
    "ecs:RegisterContainerInstance", "ecs:DeregisterContainerInstance", "ecs:UpdateContainerInstancesState", "ecs:Poll",
    "ecs:StartTelemetrySession", "ecs:SubmitAttachmentStateChanges", "ecs:SubmitContainerStateChange", "ecs:SubmitTaskStateChange",
  ]
  agent_resources = [for kind in ["cluster", "container-instance"] : "${local.arn}:ecs:${local.region_own}:${kind}/${local.name}*"]

  # Calls that have no resource in IAM's eyes: signing in to the registry, and finding the agent's endpoint.
  unscoped_actions = {
    "ecr.api"     = ["ecr:GetAuthorizationToken"]
    "ecr.dkr"     = ["ecr:GetAuthorizationToken"]
    ecs           = ["ecs:DiscoverPollEndpoint"]
    ecs-agent     = ["ecs:DiscoverPollEndpoint"]
    ecs-telemetry = ["ecs:DiscoverPollEndpoint"]
  }

  # A function's image and log lines travel inside the Lambda service, not through this network.
  interfaces = toset(concat(
    ["secretsmanager"],
    local.on_ecs ? ["ecr.api", "ecr.dkr", "logs"] : [],
    var.compute == "ecs-ec2" ? ["ecs", "ecs-agent", "ecs-telemetry"] : [],
  ))
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.gateway_policies

  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.context.region}.${each.key}"
  route_table_ids   = [for t in aws_route_table.private : t.id]
  policy            = jsonencode({ Version = "2012-10-17", Statement = each.value })
  tags              = merge(var.tags, { Name = "${local.name}-${each.key}" })
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interfaces

  vpc_id              = aws_vpc.this.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${var.context.region}.${each.key}"
  private_dns_enabled = true
  subnet_ids          = [for s in aws_subnet.private : s.id]
  security_group_ids  = [aws_security_group.this["endpoints"].id]
  tags                = merge(var.tags, { Name = "${local.name}-${each.key}" })

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "OwnResources"
        Effect    = "Allow"
        Principal = { AWS = "*" }
        Action    = local.interface_statements[each.key].actions
        Resource  = local.interface_statements[each.key].resources
        Condition = local.own
      }],
      [for actions in [lookup(local.unscoped_actions, each.key, [])] : {
        Sid       = "NoResourceLevel"
        Effect    = "Allow"
        Principal = { AWS = "*" }
        Action    = actions
        Resource  = ["*"] # AWS offers no resource level for these calls.
        Condition = local.own
      } if length(actions) > 0],
    )
  })
}
