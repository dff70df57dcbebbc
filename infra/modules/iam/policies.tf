# What each role may do.

locals {
  repository = {
    Sid      = "PullImage"
    Effect   = "Allow"
    Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
    Resource = var.repository_arn
  }
  log_arn = { for purpose, group in var.log_groups : purpose => "${local.arn}:logs:${local.own}:log-group:${group}" }
  write_log = { for purpose in ["service", "hook", "key_sync"] : purpose => {
    Sid      = "WriteLog"
    Effect   = "Allow"
    Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    Resource = "${local.log_arn[purpose]}:*"
  } }

  # A key's identifier isn't known before it is made; its alias is. The condition narrows "any key" to the one key.
  use_key = { for purpose, use in {
    artifacts = { via = "s3", actions = ["kms:Decrypt", "kms:GenerateDataKey"], alias = "artifacts" }
    secrets   = { via = "secretsmanager", actions = ["kms:Decrypt"], alias = "secrets" }
    settings  = { via = "lambda", actions = ["kms:Decrypt"], alias = "secrets" }
    tables    = { via = "dynamodb", actions = ["kms:Decrypt", "kms:DescribeKey"], alias = "database" }
    audit     = { via = "s3", actions = ["kms:Decrypt", "kms:GenerateDataKey"], alias = "trail" }
    } : purpose => {
    Sid      = "Key${title(purpose)}"
    Effect   = "Allow"
    Action   = use.actions
    Resource = "${local.arn}:kms:${local.own}:key/*"
    Condition = {
      StringEquals               = { "kms:ViaService" = "${use.via}.${var.context.region}.amazonaws.com" }
      "ForAnyValue:StringEquals" = { "kms:ResourceAliases" = "alias/${local.name}-${use.alias}" }
    }
  } }

  table_arns = [for table in ["metadata", "predictions"] : "${local.arn}:dynamodb:${local.own}:table/${var.names.tables_prefix}-${table}"]
  counters   = "${local.arn}:dynamodb:${local.own}:table/${var.names.counters_table}"

  # What the service needs wherever it runs.
  workload = concat(
    [
      {
        Sid      = "Models"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        Resource = "${local.arn}:s3:::${var.buckets.artifacts}/models/*"
      },
      {
        Sid       = "ListModels"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = "${local.arn}:s3:::${var.buckets.artifacts}"
        Condition = { StringLike = { "s3:prefix" = ["models/*"] } }
      },
      {
        Sid    = "AdminKey"
        Effect = "Allow"
        Action = ["secretsmanager:GetSecretValue"]
        # Secrets Manager ends every ARN with six characters of its own.
        Resource = "${local.arn}:secretsmanager:${local.own}:secret:${var.names.admin_secret}-??????"
      },
      local.use_key.artifacts,
      local.use_key.secrets,
    ],
    [for tables in [local.rds ? [] : concat(local.table_arns, [for t in local.table_arns : "${t}/index/*"])] : {
      Sid    = "Tables"
      Effect = "Allow"
      Action = [
        "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem",
        "dynamodb:BatchWriteItem", "dynamodb:Query", "dynamodb:ConditionCheckItem", "dynamodb:DescribeTable",
      ]
      Resource = tables
    } if length(tables) > 0],
    [for table in [var.cache ? "" : local.counters] : {
      Sid      = "Counters"
      Effect   = "Allow"
      Action   = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DescribeTable"]
      Resource = table
    } if table != ""],
    local.rds && var.cache ? [] : [local.use_key.tables],
    [for cache in [var.cache ? var.names.cache : ""] : {
      Sid    = "SignInToValkey"
      Effect = "Allow"
      Action = ["elasticache:Connect"]
      Resource = [
        "${local.arn}:elasticache:${local.own}:replicationgroup:${cache}",
        "${local.arn}:elasticache:${local.own}:serverlesscache:${cache}",
        "${local.arn}:elasticache:${local.own}:user:${cache}",
      ]
    } if cache != ""],
  )

  in_vpc = { for purpose, function in { service = var.names.function, hook = var.names.deploy_hook } : purpose => [
    {
      Sid    = "NetworkInterfaces"
      Effect = "Allow"
      Action = [
        "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
        "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
      ]
      # Lambda makes the interfaces before they have an ARN, and describing has no resource level.
      Resource = "*"
    },
    {
      # The Lambda service needs the statement above, the code doesn't.
      Sid    = "NotForTheCode"
      Effect = "Deny"
      Action = [
        "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
        "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
      ]
      Resource  = "*" # A denial: the wider, the safer.
      Condition = { ArnEquals = { "lambda:SourceFunctionArn" = "${local.arn}:lambda:${local.own}:function:${function}" } }
    },
  ] }
  traces = {
    Sid    = "Traces"
    Effect = "Allow"
    Action = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    # X-Ray has no resources to name.
    Resource = "*"
  }

  statements = {
    execution = [
      {
        Sid    = "SignInToRegistry"
        Effect = "Allow"
        Action = ["ecr:GetAuthorizationToken"]
        # The token is the account's; AWS offers no resource level.
        Resource = "*"
      },
      local.repository,
      local.write_log.service,
    ]
    task = local.workload
    function = concat(local.workload, local.in_vpc.service, [
      local.write_log.service,
      local.use_key.settings,
      local.traces,
    ])
    ecs_infrastructure = [
      {
        Sid    = "LookAtTargets"
        Effect = "Allow"
        Action = [
          "elasticloadbalancing:DescribeListeners", "elasticloadbalancing:DescribeRules",
          "elasticloadbalancing:DescribeTargetGroups", "elasticloadbalancing:DescribeTargetHealth",
        ]
        # Describing load balancers has no resource level.
        Resource = "*"
      },
      {
        Sid    = "ShiftTraffic"
        Effect = "Allow"
        Action = ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule"]
        Resource = [
          "${local.arn}:elasticloadbalancing:${local.own}:listener/app/${local.name}*/*",
          "${local.arn}:elasticloadbalancing:${local.own}:listener-rule/app/${local.name}*/*",
        ]
      },
      {
        Sid      = "MoveTargets"
        Effect   = "Allow"
        Action   = ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"]
        Resource = "${local.arn}:elasticloadbalancing:${local.own}:targetgroup/${local.name}*/*"
      },
    ]
    hook_invoker = [{
      Sid      = "CallHook"
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunction"]
      Resource = [for suffix in ["", ":*"] : "${local.arn}:lambda:${local.own}:function:${var.names.deploy_hook}${suffix}"]
    }]
    instance = [
      {
        Sid    = "JoinCluster"
        Effect = "Allow"
        Action = ["ecs:RegisterContainerInstance", "ecs:DeregisterContainerInstance", "ecs:SubmitAttachmentStateChanges",
        "ecs:SubmitContainerStateChange", "ecs:SubmitTaskStateChange"]
        Resource = "${local.arn}:ecs:${local.own}:cluster/${var.names.cluster}"
      },
      {
        Sid      = "Report"
        Effect   = "Allow"
        Action   = ["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"]
        Resource = "${local.arn}:ecs:${local.own}:container-instance/${var.names.cluster}/*"
      },
      {
        Sid    = "FindEndpoint"
        Effect = "Allow"
        Action = ["ecs:DiscoverPollEndpoint"]
        # The agent asks before it belongs to a cluster; AWS offers no resource level.
        Resource = "*"
      },
    ]
    # In the network with ECS (it talks to the test listener), outside of it with Lambda (it calls the new version).
    deploy_hook = concat(
      [local.write_log.hook, local.use_key.settings],
      [for statement in local.in_vpc.hook : statement if local.on_ecs],
      [for statement in [
        {
          Sid      = "CallNewVersion"
          Effect   = "Allow"
          Action   = ["lambda:InvokeFunction"]
          Resource = "${local.arn}:lambda:${local.own}:function:${var.names.function}:*"
        },
        {
          Sid      = "AnswerCodeDeploy"
          Effect   = "Allow"
          Action   = ["codedeploy:GetDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"]
          Resource = "${local.arn}:codedeploy:${local.own}:deploymentgroup:${var.names.function}/*"
        },
      ] : statement if !local.on_ecs],
    )
    codedeploy = [
      {
        Sid      = "ShiftAlias"
        Effect   = "Allow"
        Action   = ["lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"]
        Resource = [for suffix in ["", ":*"] : "${local.arn}:lambda:${local.own}:function:${var.names.function}${suffix}"]
      },
      {
        Sid      = "CallHook"
        Effect   = "Allow"
        Action   = ["lambda:InvokeFunction"]
        Resource = "${local.arn}:lambda:${local.own}:function:${var.names.deploy_hook}"
      },
      {
        Sid      = "WatchAlarms"
        Effect   = "Allow"
        Action   = ["cloudwatch:DescribeAlarms"]
        Resource = "${local.arn}:cloudwatch:${local.own}:alarm:${local.name}-*"
      },
      {
        Sid      = "Announce"
        Effect   = "Allow"
        Action   = ["sns:Publish"]
        Resource = "${local.arn}:sns:${local.own}:${var.names.topic}"
      },
    ]
    key_sync = [
      local.write_log.key_sync,
      local.use_key.settings,
      {
        Sid    = "Keys"
        Effect = "Allow"
        Action = ["apigateway:GET", "apigateway:POST", "apigateway:PATCH", "apigateway:DELETE"]
        Resource = [
          "${local.arn}:apigateway:${var.context.region}::/apikeys",
          "${local.arn}:apigateway:${var.context.region}::/apikeys/*",
        ]
      },
      {
        Sid    = "PlansOfKeys"
        Effect = "Allow"
        Action = ["apigateway:GET", "apigateway:POST", "apigateway:DELETE"]
        Resource = [
          "${local.arn}:apigateway:${var.context.region}::/usageplans/*/keys",
          "${local.arn}:apigateway:${var.context.region}::/usageplans/*/keys/*",
        ]
      },
    ]
    gateway_logging = [
      {
        Sid    = "WriteLogs"
        Effect = "Allow"
        Action = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents", "logs:GetLogEvents", "logs:FilterLogEvents"]
        Resource = [for group in ["API-Gateway-Execution-Logs_*", "/aws/apigateway/*", var.log_groups.gateway] :
        "${local.arn}:logs:${local.own}:log-group:${group}:*"]
      },
      {
        Sid    = "FindLogs"
        Effect = "Allow"
        Action = ["logs:DescribeLogGroups"]
        # Listing log groups has no narrower resource than the account's.
        Resource = "${local.arn}:logs:${local.own}:log-group:*"
      },
    ]
    trail = [{
      Sid      = "WriteLog"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${local.log_arn.trail}:log-stream:${var.context.account_id}_CloudTrail_*"
    }]
    config = [
      {
        Sid       = "Deliver"
        Effect    = "Allow"
        Action    = ["s3:PutObject"]
        Resource  = "${local.arn}:s3:::${var.buckets.audit}/config/AWSLogs/${var.context.account_id}/*"
        Condition = { StringLike = { "s3:x-amz-acl" = "bucket-owner-full-control" } }
      },
      {
        Sid      = "FindBucket"
        Effect   = "Allow"
        Action   = ["s3:GetBucketAcl"]
        Resource = "${local.arn}:s3:::${var.buckets.audit}"
      },
      local.use_key.audit,
    ]
    rds_monitoring = [{
      Sid    = "WriteMetrics"
      Effect = "Allow"
      Action = ["logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams", "logs:GetLogEvents"]
      Resource = ["${local.arn}:logs:${local.own}:log-group:RDSOSMetrics",
      "${local.arn}:logs:${local.own}:log-group:RDSOSMetrics:log-stream:*"]
    }]
    # Only a proxy that keeps a secret; by token it signs in as the policy database-login says.
    rds_proxy = [for statement in [
      {
        Sid    = "ServicesLogin"
        Effect = "Allow"
        Action = ["secretsmanager:GetSecretValue"]
        # Secrets Manager ends every ARN with six characters of its own.
        Resource = "${local.arn}:secretsmanager:${local.own}:secret:${var.names.proxy_secret}-??????"
      },
      local.use_key.secrets,
    ] : statement if var.proxy_login == "secret"]
    # DATA-3: the analytics user of RDS reads views only; with DynamoDB the table of predictions and its indexes.
    analytics = local.rds ? [{
      Sid      = "FindDatabase"
      Effect   = "Allow"
      Action   = ["rds:DescribeDBInstances"]
      Resource = ["${local.arn}:rds:${local.own}:db:${var.names.database}"]
      }] : [{
      Sid      = "ReadPredictions"
      Effect   = "Allow"
      Action   = ["dynamodb:Query", "dynamodb:GetItem", "dynamodb:DescribeTable"]
      Resource = [for suffix in ["", "/index/*"] : "${local.arn}:dynamodb:${local.own}:table/${var.names.tables_prefix}-predictions${suffix}"]
    }]
  }
}
