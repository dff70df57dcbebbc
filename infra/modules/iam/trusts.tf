# Who may assume which role. Each service only on behalf of this account (and, where it says so, of one resource): no
# other customer's resource can make the service act with our role.

locals {
  for_account = { StringEquals = { "aws:SourceAccount" = var.context.account_id } }
  # These assume roles without naming a source: a condition on it would lock them out. They act for their own account only.
  no_source = { StringEqualsIfExists = { "aws:SourceAccount" = var.context.account_id } }

  trusts = {
    execution = {
      why       = "ECS agent: pulls the image and writes the log"
      principal = { Service = "ecs-tasks.amazonaws.com" }
      condition = merge(local.for_account, { ArnLike = { "aws:SourceArn" = "${local.arn}:ecs:${local.own}:*" } })
    }
    task = {
      why       = "The service itself, on ECS"
      principal = { Service = "ecs-tasks.amazonaws.com" }
      condition = merge(local.for_account, { ArnLike = { "aws:SourceArn" = "${local.arn}:ecs:${local.own}:*" } })
    }
    ecs_infrastructure = {
      why       = "ECS: shifts the load balancer's rules between blue and green"
      principal = { Service = "ecs.amazonaws.com" }
      condition = merge(local.for_account, { ArnLike = { "aws:SourceArn" = "${local.arn}:ecs:${local.own}:*" } })
    }
    hook_invoker = {
      why       = "ECS: calls the deployment hook"
      principal = { Service = "ecs.amazonaws.com" }
      condition = merge(local.for_account, { ArnLike = { "aws:SourceArn" = "${local.arn}:ecs:${local.own}:*" } })
    }
    instance = {
      why       = "EC2 instances that carry the tasks"
      principal = { Service = "ec2.amazonaws.com" }
      condition = local.no_source
    }
    function = {
      why       = "The service itself, on Lambda"
      principal = { Service = "lambda.amazonaws.com" }
      condition = local.no_source
    }
    deploy_hook = {
      why       = "Deployment hook: smoke test of a release"
      principal = { Service = "lambda.amazonaws.com" }
      condition = local.no_source
    }
    key_sync = {
      why       = "Key synchronisation: writes gateway keys"
      principal = { Service = "lambda.amazonaws.com" }
      condition = local.no_source
    }
    codedeploy = {
      why       = "CodeDeploy: shifts the alias between versions"
      principal = { Service = "codedeploy.amazonaws.com" }
      condition = merge(local.for_account, { ArnLike = { "aws:SourceArn" = "${local.arn}:codedeploy:${local.own}:deploymentgroup:${var.names.function}/*" } })
    }
    gateway_logging = {
      why       = "API Gateway: writes its execution logs"
      principal = { Service = "apigateway.amazonaws.com" }
      condition = local.no_source
    }
    trail = {
      why       = "CloudTrail: writes to its log group"
      principal = { Service = "cloudtrail.amazonaws.com" }
      condition = merge(local.for_account, { ArnEquals = { "aws:SourceArn" = "${local.arn}:cloudtrail:${local.own}:trail/${var.names.trail}" } })
    }
    config = {
      why       = "AWS Config: records settings over time"
      principal = { Service = "config.amazonaws.com" }
      condition = local.for_account
    }
    rds_monitoring = {
      why       = "RDS: writes operating system metrics"
      principal = { Service = "monitoring.rds.amazonaws.com" }
      condition = merge(local.for_account, { ArnEquals = { "aws:SourceArn" = "${local.arn}:rds:${local.own}:db:${var.names.database}" } })
    }
    rds_proxy = {
      why       = "RDS Proxy: signs in to the database as the service's user"
      principal = { Service = "rds.amazonaws.com" }
      condition = local.for_account
    }
    backup = {
      why       = "AWS Backup: takes and tests recovery points"
      principal = { Service = "backup.amazonaws.com" }
      condition = local.for_account
    }
    analytics = {
      why       = "People who analyse the prediction log: read only, with a second factor"
      principal = { AWS = var.analysts }
      condition = { Bool = { "aws:MultiFactorAuthPresent" = "true" } }
    }
  }
}
