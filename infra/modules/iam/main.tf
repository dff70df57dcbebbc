# SEC-3: every role of the stack, with the one service that may assume it, the statements it needs and a boundary above.
# ARNs are composed from names, so each policy can be read in a plan. Statements with Resource "*" carry the reason.

locals {
  name      = var.context.name
  arn       = "arn:${var.context.partition}"
  own       = "${var.context.region}:${var.context.account_id}"
  on_ecs    = var.compute != "lambda"
  rds       = var.database != "dynamodb"
  role_name = { for purpose in local.purposes : purpose => "${local.name}-${replace(purpose, "_", "-")}" }
  role_arns = { for purpose, name in local.role_name : purpose => "${local.arn}:iam::${var.context.account_id}:role/${name}" }

  purposes = toset(concat(
    ["deploy_hook", "key_sync", "trail", "backup"],
    length(var.analysts) > 0 ? ["analytics"] : [],
    local.on_ecs ? ["execution", "task", "ecs_infrastructure", "hook_invoker"] : ["function", "codedeploy"],
    var.compute == "ecs-ec2" ? ["instance"] : [],
    local.rds ? ["rds_monitoring"] : [],
    var.proxied ? ["rds_proxy"] : [],
    var.create_gateway_role ? ["gateway_logging"] : [],
    var.create_config_role ? ["config"] : [],
  ))

  # AWS's own policies, where the list of calls is long, moves with the service and can't be narrowed by resource.
  managed_policies = merge(
    {
      backup  = "service-role/AWSBackupServiceRolePolicyForBackup"
      restore = "service-role/AWSBackupServiceRolePolicyForRestores"
    },
    var.create_config_role ? { config = "service-role/AWS_ConfigRole" } : {},
  )
  managed_roles = { backup = "backup", restore = "backup", config = "config" }

  # Who signs in to the database by token; only analysts under another name than the service's own.
  database_logins = toset(concat(["task", "function", "analytics"], var.proxy_login == "iam" ? ["rds_proxy"] : []))
}

resource "aws_iam_role" "this" {
  for_each = local.purposes

  name                 = local.role_name[each.key]
  description          = local.trusts[each.key].why
  max_session_duration = 3600
  # The recorder of Config reads every service there is; its ceiling is AWS's own read-only policy.
  permissions_boundary = each.key == "config" ? null : aws_iam_policy.boundary.arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Assume"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = local.trusts[each.key].principal
      Condition = local.trusts[each.key].condition
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = { for purpose, statements in local.statements : purpose => statements if contains(local.purposes, purpose) && length(statements) > 0 }

  name   = "permissions"
  role   = aws_iam_role.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = each.value })
}

# Signing in to the database needs the identifier that RDS gives it, the one thing here that isn't known at plan time: the
# service signs in to what is in front (a proxy, if there is one), analysts and the proxy itself to the instance.
resource "aws_iam_role_policy" "database_login" {
  for_each = local.rds ? setintersection(local.purposes, local.database_logins) : toset([])

  name = "database-login"
  role = aws_iam_role.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "SignIn"
      Effect   = "Allow"
      Action   = "rds-db:connect"
      Resource = "${local.arn}:rds-db:${local.own}:dbuser:${contains(["analytics", "rds_proxy"], each.key) ? var.database_resource_id : var.login_resource_id}/${each.key == "analytics" ? var.names.analytics_user : var.names.database_user}"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "managed" {
  for_each = local.managed_policies

  role       = aws_iam_role.this[local.managed_roles[each.key]].name
  policy_arn = "${local.arn}:iam::aws:policy/${each.value}"
}

resource "aws_iam_instance_profile" "this" {
  for_each = var.compute == "ecs-ec2" ? toset(["instance"]) : toset([])

  name = local.role_name[each.key]
  role = aws_iam_role.this[each.key].name
  tags = var.tags
}

resource "aws_accessanalyzer_analyzer" "this" {
  for_each = var.create_access_analyzer ? { account = "ACCOUNT" } : {}

  analyzer_name = local.name
  type          = each.value
  tags          = var.tags
}
