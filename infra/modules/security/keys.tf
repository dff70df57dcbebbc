# SEC-1: one customer-managed key per purpose. A key's policy lets the account administer it but not use it; its use is
# open only through the services named here (whose callers still need their own permission), and to the services
# themselves, for this stack's own resources. No role gets kms:*.

locals {
  via = {
    artifacts = ["s3"]
    database  = ["rds", "dynamodb", "elasticache", "backup"]
    logs      = ["sns", "sqs"]
    trail     = ["s3", "cloudtrail"]
    secrets   = ["secretsmanager", "lambda"]
    volumes   = ["ec2", "ecs"]
  }
  # The gateway makes one more group itself, named after the API's identifier.
  log_group_arns = [for group in concat(values(var.log_groups), ["API-Gateway-Execution-Logs_*"]) : "${local.arn}:logs:${local.region_own}:log-group:${group}"]
  trail_arn      = "${local.arn}:cloudtrail:${local.region_own}:trail/${var.trail_name}"
  from_account   = { StringEquals = { "aws:SourceAccount" = var.context.account_id } }

  service_statements = {
    logs = [
      {
        Sid       = "LogGroups"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.context.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = local.log_group_arns } }
      },
      {
        Sid       = "AlertPublishers"
        Effect    = "Allow"
        Principal = { Service = ["cloudwatch.amazonaws.com", "events.amazonaws.com", "budgets.amazonaws.com", "costalerts.amazonaws.com"] }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = "*"
        Condition = local.from_account
      },
    ]
    trail = [
      {
        Sid       = "Trail"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = ["kms:GenerateDataKey", "kms:Decrypt", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn } }
      },
      {
        Sid       = "FlowLogsAndConfig"
        Effect    = "Allow"
        Principal = { Service = ["delivery.logs.amazonaws.com", "config.amazonaws.com"] }
        Action    = ["kms:GenerateDataKey", "kms:Decrypt", "kms:DescribeKey"]
        Resource  = "*"
        Condition = local.from_account
      },
    ]
    volumes = concat(
      var.compute == "ecs-fargate" ? [
        {
          Sid       = "FargateVolumes"
          Effect    = "Allow"
          Principal = { Service = "fargate.amazonaws.com" }
          Action    = ["kms:GenerateDataKeyWithoutPlaintext"]
          Resource  = "*"
          Condition = { StringEquals = local.fargate_context }
        },
        {
          Sid       = "FargateGrants"
          Effect    = "Allow"
          Principal = { Service = "fargate.amazonaws.com" }
          Action    = ["kms:CreateGrant"]
          Resource  = "*"
          Condition = { StringEquals = local.fargate_context, "ForAllValues:StringEquals" = { "kms:GrantOperations" = ["Decrypt"] } }
        },
      ] : [],
      var.compute == "ecs-ec2" ? [
        {
          # The role that AWS makes with the account's first group: it may not exist yet, so it can't be the principal
          # itself (a policy that names a missing role is refused); the condition names it instead.
          Sid       = "InstanceVolumes"
          Effect    = "Allow"
          Principal = { AWS = "*" }
          Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey", "kms:CreateGrant"]
          Resource  = "*"
          Condition = { StringEquals = {
            "kms:CallerAccount" = var.context.account_id
            "aws:PrincipalArn"  = "${local.arn}:iam::${var.context.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
          } }
        },
      ] : [],
    )
  }
  fargate_context = {
    "kms:EncryptionContext:aws:ecs:clusterAccount" = [var.context.account_id]
    "kms:EncryptionContext:aws:ecs:clusterName"    = [local.name]
  }
}

resource "aws_kms_key" "this" {
  for_each = local.via

  description             = "${local.name}: ${each.key}"
  enable_key_rotation     = true
  rotation_period_in_days = 365
  deletion_window_in_days = var.deletion_protection ? 30 : 7
  tags                    = merge(var.tags, { Name = "${local.name}-${each.key}" })

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid       = "Administration"
          Effect    = "Allow"
          Principal = { AWS = "${local.arn}:iam::${var.context.account_id}:root" }
          Action = [
            "kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:ListKeyPolicies", "kms:UpdateKeyDescription",
            "kms:EnableKey", "kms:DisableKey", "kms:GetKeyRotationStatus", "kms:EnableKeyRotation", "kms:DisableKeyRotation",
            "kms:RotateKeyOnDemand", "kms:ListKeyRotations", "kms:TagResource", "kms:UntagResource", "kms:ListResourceTags",
            "kms:CreateAlias", "kms:UpdateAlias", "kms:DeleteAlias", "kms:ListGrants", "kms:RevokeGrant",
            "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
          ]
          Resource = "*"
        },
        {
          Sid       = "ThroughServices"
          Effect    = "Allow"
          Principal = { AWS = "${local.arn}:iam::${var.context.account_id}:root" }
          Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"]
          Resource  = "*"
          Condition = { StringEquals = {
            "kms:CallerAccount" = var.context.account_id
            "kms:ViaService"    = [for service in each.value : "${service}.${var.context.region}.amazonaws.com"]
          } }
        },
        {
          Sid       = "GrantsOfServices"
          Effect    = "Allow"
          Principal = { AWS = "${local.arn}:iam::${var.context.account_id}:root" }
          Action    = ["kms:CreateGrant"]
          Resource  = "*"
          Condition = {
            StringEquals = {
              "kms:CallerAccount" = var.context.account_id
              "kms:ViaService"    = [for service in each.value : "${service}.${var.context.region}.amazonaws.com"]
            }
            Bool = { "kms:GrantIsForAWSResource" = "true" }
          }
        },
      ],
      lookup(local.service_statements, each.key, []),
    )
  })
}

resource "aws_kms_alias" "this" {
  for_each = aws_kms_key.this

  name          = "alias/${local.name}-${each.key}"
  target_key_id = each.value.key_id
}
