# The pipeline has no keys: it shows a token of its own platform, for one repository and one branch or environment. The
# role can do what Terraform needs for this project and, by its boundary, only make roles that carry a boundary too.

locals {
  pipeline = var.pipeline == null ? {} : { this = var.pipeline }
  issuer   = var.pipeline == null ? "" : trimprefix(var.pipeline.issuer, "https://")

  # Services that the stack is made of. Terraform makes, changes and removes their resources, so the calls are many; the
  # resources are this project's where AWS lets them be named, and the region is fixed.
  regional_services = [
    "acm", "access-analyzer", "apigateway", "application-autoscaling", "autoscaling", "backup", "backup-storage", "cloudtrail", "cloudwatch",
    "codedeploy", "config", "dynamodb", "ec2", "ecr", "ecs", "elasticache", "elasticloadbalancing", "events", "guardduty",
    "kms", "lambda", "logs", "rds", "s3", "secretsmanager", "sns", "sqs", "ssm", "tag", "wafv2",
  ]
}

resource "aws_iam_openid_connect_provider" "this" {
  for_each = { for k, p in local.pipeline : k => p if p.provider == "create" }

  url            = each.value.issuer
  client_id_list = [each.value.audience]
}

resource "aws_iam_policy" "pipeline_boundary" {
  for_each = local.pipeline

  name        = "${local.name}-pipeline-boundary"
  description = "Ceiling of the pipeline; grants nothing by itself"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Ceiling"
        Effect = "Allow"
        Action = [for service in local.regional_services : "${service}:*"]
        # A ceiling names services; what lies below is the role's own policy.
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
      },
      {
        Sid    = "GlobalServices"
        Effect = "Allow"
        Action = ["iam:*", "budgets:*", "ce:*", "route53:*", "sts:GetCallerIdentity"]
        # These services know no region; the denials below narrow the first one.
        Resource = "*"
      },
      {
        # The recorder of Config alone has no boundary: it reads every service, by AWS's own policy.
        Sid         = "RolesOnlyBelowABoundary"
        Effect      = "Deny"
        Action      = ["iam:CreateRole", "iam:PutRolePermissionsBoundary"]
        NotResource = "${local.arn}:iam::${local.account_id}:role/${var.project}-*-config"
        Condition = { StringNotLike = {
          "iam:PermissionsBoundary" = "${local.arn}:iam::${local.account_id}:policy/${var.project}-*-boundary"
        } }
      },
      {
        Sid         = "NoOtherRoles"
        Effect      = "Deny"
        Action      = ["iam:CreateRole", "iam:DeleteRole", "iam:UpdateAssumeRolePolicy", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PassRole"]
        NotResource = ["${local.arn}:iam::${local.account_id}:role/${var.project}-*"]
      },
      {
        Sid    = "NoPeopleAndNoKeys"
        Effect = "Deny"
        Action = ["iam:CreateUser", "iam:CreateAccessKey", "iam:CreateLoginProfile", "iam:CreateGroup", "iam:AddUserToGroup", "iam:DeleteRolePermissionsBoundary"]
        # A denial: the wider, the safer.
        Resource = "*"
      },
      {
        Sid    = "NotItself"
        Effect = "Deny"
        Action = ["iam:*"]
        Resource = [
          "${local.arn}:iam::${local.account_id}:role/${local.name}-pipeline",
          "${local.arn}:iam::${local.account_id}:policy/${local.name}-*",
        ]
      },
    ]
  })
}

resource "aws_iam_role" "pipeline" {
  for_each = local.pipeline

  name                 = "${local.name}-pipeline"
  description          = "Enters with the pipeline's own token; plans, applies and pushes images"
  max_session_duration = 3600
  permissions_boundary = aws_iam_policy.pipeline_boundary[each.key].arn

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "PipelineToken"
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = "${local.arn}:iam::${local.account_id}:oidc-provider/${local.issuer}" }
      Condition = { StringEquals = {
        "${local.issuer}:aud" = each.value.audience
        "${local.issuer}:sub" = each.value.subjects
      } }
    }]
  })
}

resource "aws_iam_role_policy" "pipeline" {
  for_each = local.pipeline

  name = "permissions"
  role = aws_iam_role.pipeline[each.key].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "TheStack"
        Effect = "Allow"
        Action = [for service in local.regional_services : "${service}:*" if !contains(["s3", "ecr"], service)]
        # Terraform makes these resources before they have an ARN, and describes them account-wide.
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
      },
      {
        Sid      = "BucketsAndImages"
        Effect   = "Allow"
        Action   = ["s3:*", "ecr:*"]
        Resource = ["${local.arn}:s3:::${var.project}-*", "${local.arn}:ecr:${var.region}:${local.account_id}:repository/${var.project}*"]
      },
      {
        Sid    = "SignInToRegistry"
        Effect = "Allow"
        Action = ["ecr:GetAuthorizationToken"]
        # The token is the account's; AWS offers no resource level.
        Resource = "*"
      },
      {
        Sid    = "RolesOfTheStack"
        Effect = "Allow"
        Action = [
          "iam:CreateRole", "iam:DeleteRole", "iam:GetRole", "iam:UpdateRole", "iam:UpdateAssumeRolePolicy", "iam:TagRole", "iam:UntagRole",
          "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy", "iam:GetRolePolicy", "iam:DeleteRolePolicy", "iam:ListRolePolicies",
          "iam:AttachRolePolicy", "iam:DetachRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole",
        ]
        Resource = "${local.arn}:iam::${local.account_id}:role/${var.project}-*"
      },
      {
        Sid      = "HandRolesToServices"
        Effect   = "Allow"
        Action   = ["iam:PassRole"]
        Resource = "${local.arn}:iam::${local.account_id}:role/${var.project}-*"
        Condition = { StringEquals = { "iam:PassedToService" = [
          "apigateway.amazonaws.com", "backup.amazonaws.com", "cloudtrail.amazonaws.com", "codedeploy.amazonaws.com", "config.amazonaws.com",
          "ec2.amazonaws.com", "ecs-tasks.amazonaws.com", "ecs.amazonaws.com", "lambda.amazonaws.com", "monitoring.rds.amazonaws.com", "rds.amazonaws.com",
        ] } }
      },
      {
        Sid    = "PoliciesAndProfilesOfTheStack"
        Effect = "Allow"
        Action = [
          "iam:CreatePolicy", "iam:DeletePolicy", "iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListPolicyVersions", "iam:CreatePolicyVersion",
          "iam:DeletePolicyVersion", "iam:TagPolicy", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile", "iam:GetInstanceProfile",
          "iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile",
        ]
        Resource = [
          "${local.arn}:iam::${local.account_id}:policy/${var.project}-*",
          "${local.arn}:iam::${local.account_id}:instance-profile/${var.project}-*",
        ]
      },
      {
        Sid      = "RolesThatServicesBring"
        Effect   = "Allow"
        Action   = ["iam:CreateServiceLinkedRole"]
        Resource = "${local.arn}:iam::${local.account_id}:role/aws-service-role/*"
        Condition = { StringEquals = { "iam:AWSServiceName" = [
          "autoscaling.amazonaws.com", "backup.amazonaws.com", "ecs.amazonaws.com", "ecs.application-autoscaling.amazonaws.com",
          "elasticache.amazonaws.com", "elasticloadbalancing.amazonaws.com", "guardduty.amazonaws.com", "lambda.application-autoscaling.amazonaws.com",
          "ops.apigateway.amazonaws.com", "rds.amazonaws.com", "access-analyzer.amazonaws.com", "wafv2.amazonaws.com",
        ] } }
      },
      {
        Sid    = "MoneyAndNames"
        Effect = "Allow"
        Action = [
          "budgets:ViewBudget", "budgets:ModifyBudget", "budgets:ListTagsForResource", "budgets:TagResource", "budgets:UntagResource",
          "ce:CreateAnomalyMonitor", "ce:GetAnomalyMonitors", "ce:UpdateAnomalyMonitor", "ce:DeleteAnomalyMonitor",
          "ce:CreateAnomalySubscription", "ce:GetAnomalySubscriptions", "ce:UpdateAnomalySubscription", "ce:DeleteAnomalySubscription",
          "ce:ListTagsForResource", "ce:TagResource", "ce:UntagResource", "ce:ListCostAllocationTags", "ce:UpdateCostAllocationTagsStatus",
          "route53:GetHostedZone", "route53:ListResourceRecordSets", "route53:ChangeResourceRecordSets", "route53:GetChange", "route53:ListTagsForResource",
        ]
        # Budgets, Cost Explorer and the name's zone belong to the account, not to the project.
        Resource = "*"
      },
    ]
  })
}
