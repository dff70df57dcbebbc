# Who may talk to whom. Each conversation is written once; both of its rules (out of one group, into the other) come from it.

locals {
  groups = merge(
    {
      endpoints = "VPC endpoints: HTTPS from the service's own parts"
    },
    local.on_ecs ? {
      link          = "The gateway's VPC link: reaches the load balancer and nothing else"
      load_balancer = "Internal load balancer"
      service       = "Tasks of the service"
      hook          = "Deployment hook: smoke test through the test listener"
      } : {
      function = "The service as a function"
    },
    var.compute == "ecs-ec2" ? { instance = "EC2 instances that carry the tasks" } : {},
    local.relational ? { database = "Database: only the service's groups get in" } : {},
    var.proxied ? { proxy = "Database proxy between function and database" } : {},
    var.cache ? { cache = "Valkey: exact limits" } : {},
  )
  workload = local.on_ecs ? "service" : "function"

  conversations = merge(
    local.on_ecs ? {
      link-load_balancer    = { from = "link", to = "load_balancer", port = local.listener_port, why = "requests from the gateway" }
      hook-load_balancer    = { from = "hook", to = "load_balancer", port = local.test_port, why = "smoke test of green" }
      load_balancer-service = { from = "load_balancer", to = "service", port = local.service_port, why = "requests and health checks" }
      service-endpoints     = { from = "service", to = "endpoints", port = 443, why = "AWS interfaces without internet" }
      hook-endpoints        = { from = "hook", to = "endpoints", port = 443, why = "AWS interfaces without internet" }
      } : {
      function-endpoints = { from = "function", to = "endpoints", port = 443, why = "AWS interfaces without internet" }
    },
    var.compute == "ecs-ec2" ? {
      instance-endpoints = { from = "instance", to = "endpoints", port = 443, why = "ECS agent and image pulls" }
    } : {},
    local.relational && !var.proxied ? {
      service-database = { from = local.workload, to = "database", port = local.database_port, why = "metadata and prediction log" }
    } : {},
    var.proxied ? {
      function-proxy = { from = "function", to = "proxy", port = local.database_port, why = "metadata and prediction log" }
      proxy-database = { from = "proxy", to = "database", port = local.database_port, why = "pooled connections" }
    } : {},
    var.cache ? {
      service-cache = { from = local.workload, to = "cache", port = local.cache_port, why = "exact limits" }
    } : {},
  )

  # Gateway endpoints have no group; their addresses are a prefix list.
  s3_callers       = toset(compact([local.workload, var.compute == "ecs-ec2" ? "instance" : ""]))
  dynamodb_callers = toset([local.workload])
  internet_callers = var.network.egress == "nat" ? toset([local.workload]) : toset([])
}

resource "aws_security_group" "this" {
  for_each = local.groups

  name        = "${local.name}-${replace(each.key, "_", "-")}"
  description = each.value
  vpc_id      = aws_vpc.this.id
  tags        = merge(var.tags, { Name = "${local.name}-${replace(each.key, "_", "-")}" })
}

resource "aws_vpc_security_group_egress_rule" "conversation" {
  for_each = local.conversations

  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  description                  = "To ${each.value.to}: ${each.value.why}"
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = merge(var.tags, { Name = each.key })
}

resource "aws_vpc_security_group_ingress_rule" "conversation" {
  for_each = local.conversations

  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  description                  = "From ${each.value.from}: ${each.value.why}"
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = merge(var.tags, { Name = each.key })
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each = local.s3_callers

  security_group_id = aws_security_group.this[each.key].id
  prefix_list_id    = aws_vpc_endpoint.gateway["s3"].prefix_list_id
  description       = "To S3 through its gateway endpoint: models and image layers"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = merge(var.tags, { Name = "${each.key}-s3" })
}

resource "aws_vpc_security_group_egress_rule" "dynamodb" {
  for_each = local.dynamodb_callers

  security_group_id = aws_security_group.this[each.key].id
  prefix_list_id    = aws_vpc_endpoint.gateway["dynamodb"].prefix_list_id
  description       = "To DynamoDB through its gateway endpoint: tables or counters"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = merge(var.tags, { Name = "${each.key}-dynamodb" })
}

resource "aws_vpc_security_group_egress_rule" "internet" {
  for_each = local.internet_callers

  security_group_id = aws_security_group.this[each.key].id
  cidr_ipv4         = "0.0.0.0/0"
  description       = "To the internet through NAT, asked for by egress = nat"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = merge(var.tags, { Name = "${each.key}-internet" })
}
