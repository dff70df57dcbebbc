# The ceiling of every role: the services this stack is made of, in this region, and never what would let a role lift
# its own ceiling, blind the audit or hand a key to somebody else. A boundary grants nothing; it cuts what policies grant.

resource "aws_iam_policy" "boundary" {
  name        = "${local.name}-boundary"
  description = "Ceiling of every role of ${local.name}; grants nothing by itself"
  tags        = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Ceiling"
        Effect = "Allow"
        Action = [
          "apigateway:*", "backup:*", "backup-storage:*", "cloudwatch:*", "codedeploy:*", "dynamodb:*", "ec2:*", "ecr:*", "ecs:*",
          "elasticache:Connect", "elasticloadbalancing:*", "events:*", "kms:*", "lambda:*", "logs:*", "rds:*", "rds-db:connect",
          "s3:*", "secretsmanager:GetSecretValue", "sns:Publish", "sqs:SendMessage", "tag:GetResources", "xray:*",
        ]
        # A ceiling names services; each role's own policy names the resources.
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.context.region } }
      },
      {
        Sid    = "NeverItsOwnCeiling"
        Effect = "Deny"
        Action = ["iam:*", "organizations:*", "account:*", "sts:AssumeRole"]
        # A denial: the wider, the safer.
        Resource = "*"
      },
      {
        Sid    = "NeverTheAudit"
        Effect = "Deny"
        Action = [
          "cloudtrail:*", "config:*", "guardduty:*", "logs:DeleteLogGroup", "logs:DeleteLogStream", "ec2:DeleteFlowLogs",
          "backup:DeleteRecoveryPoint", "backup:DeleteBackupVaultLockConfiguration", "s3:BypassGovernanceRetention",
          "s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:DeleteObjectVersion",
        ]
        # A denial: the wider, the safer.
        Resource = "*"
      },
      {
        Sid    = "NeverTheKeys"
        Effect = "Deny"
        Action = ["kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:DisableKeyRotation", "kms:DeleteAlias", "kms:UpdateAlias"]
        # A denial: the wider, the safer. Aliases decide which key a role may use.
        Resource = "*"
      },
    ]
  })
}
