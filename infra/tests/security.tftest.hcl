# Promise: whatever the choices, nothing but the service reaches the data, and nothing inside reaches the internet.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags                = { Project = "modelyard" }
  network             = { cidr = "10.64.0.0/20", zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"], egress = "endpoints" }
  compute             = "ecs-fargate"
  database            = "postgres"
  cache               = true
  proxied             = false
  buckets             = { artifacts = "a", logs = "l", audit = "u" }
  flow_log_bucket_arn = "arn:aws:s3:::u"
  repository_arn      = "arn:aws:ecr:eu-central-1:123456789012:repository/modelyard"
  admin_secret_name   = "modelyard-test/admin-key"
  log_groups          = { service = "/modelyard/test/service" }
  trail_name          = "modelyard-test-trail"
  domain              = null
  deletion_protection = true
}

run "endpoints_instead_of_a_way_out" {
  command = plan
  module {
    source = "./modules/security"
  }

  assert {
    condition     = length(aws_internet_gateway.this) == 0 && length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0
    error_message = "egress = endpoints must not make any way to the internet."
  }
  assert {
    condition     = length(aws_subnet.private) == 3 && length(aws_subnet.data) == 3 && alltrue([for s in aws_subnet.data : !s.map_public_ip_on_launch])
    error_message = "Every zone needs a private and a data subnet without public addresses."
  }
  assert {
    condition     = alltrue([for r in aws_vpc_security_group_ingress_rule.conversation : r.cidr_ipv4 == null && r.description != ""])
    error_message = "Groups let other groups in, never addresses, and each rule says why."
  }
  assert {
    condition     = alltrue([for e in aws_vpc_endpoint.interface : alltrue([for s in jsondecode(e.policy).Statement : s.Condition.StringEquals["aws:PrincipalAccount"] == "123456789012"])])
    error_message = "Interface endpoints must let only this account in."
  }
  assert {
    condition     = alltrue([for k in aws_kms_key.this : k.enable_key_rotation && k.deletion_window_in_days == 30])
    error_message = "Keys rotate and wait 30 days before they go."
  }
  assert {
    condition     = alltrue([for k in aws_kms_key.this : alltrue([for s in jsondecode(k.policy).Statement : !contains(flatten([s.Action]), "kms:*")])])
    error_message = "No key policy may allow kms:*."
  }
}

run "function_behind_a_proxy" {
  command = plan
  module {
    source = "./modules/security"
  }
  variables {
    compute  = "lambda"
    database = "mysql"
    proxied  = true
  }

  assert {
    condition     = !contains(keys(aws_vpc_security_group_ingress_rule.conversation), "service-database") && aws_vpc_security_group_ingress_rule.conversation["proxy-database"].from_port == 3306
    error_message = "With a proxy only the proxy reaches the database."
  }
  assert {
    condition     = keys(aws_vpc_endpoint.interface) == ["secretsmanager"]
    error_message = "A function needs no endpoint for images or logs."
  }
}

run "nat_when_asked_for" {
  command = plan
  module {
    source = "./modules/security"
  }
  variables {
    network = { cidr = "10.64.0.0/20", zones = ["eu-central-1a", "eu-central-1b"], egress = "nat" }
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2 && length(aws_route.nat) == 2
    error_message = "One NAT gateway a zone."
  }
}

run "one_zone_is_refused" {
  command = plan
  module {
    source = "./modules/security"
  }
  variables {
    network = { cidr = "10.64.0.0/20", zones = ["eu-central-1a"], egress = "endpoints" }
  }
  expect_failures = [var.network]
}

run "unknown_compute_and_database_are_refused" {
  command = plan
  module {
    source = "./modules/security"
  }
  variables {
    compute  = "kubernetes"
    database = "oracle"
  }
  expect_failures = [var.compute, var.database]
}
