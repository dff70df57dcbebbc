# Promise: no role can do more than its job, and none can lift its own ceiling.
mock_provider "aws" {}

variables {
  context = {
    name        = "modelyard-test"
    environment = "test"
    account_id  = "123456789012"
    partition   = "aws"
    region      = "eu-central-1"
  }
  tags     = { Project = "modelyard" }
  compute  = "ecs-fargate"
  database = "postgres"
  cache    = true
  proxied  = false

  proxy_login = "iam"
  names = {
    api           = "modelyard-test", cluster = "modelyard-test", service = "s", function = "f", alias = "live", deploy_hook = "hook", key_sync = "sync",
    topic         = "alerts", trail = "trail", database = "db", database_user = "modelyard", analytics_user = "modelyard_reader", proxy = "proxy",
    proxy_secret  = "modelyard-test/database-login", cache = "limits", admin_secret = "modelyard-test/admin-key", backup_vault = "vault",
    tables_prefix = "modelyard-test", counters_table = "modelyard-test-counters",
  }
  buckets                = { artifacts = "a", logs = "l", audit = "u" }
  log_groups             = { service = "/s", hook = "/h", key_sync = "/k", trail = "/t", gateway = "/g" }
  repository_arn         = "arn:aws:ecr:eu-central-1:123456789012:repository/modelyard"
  login_resource_id      = "db-ABC"
  database_resource_id   = "db-ABC"
  analysts               = []
  create_config_role     = true
  create_gateway_role    = true
  create_access_analyzer = true
}

run "every_role_is_bounded_and_narrow" {
  command = plan
  module {
    source = "./modules/iam"
  }

  assert {
    condition     = alltrue([for k, r in aws_iam_role.this : alltrue([for s in jsondecode(r.assume_role_policy).Statement : length(s.Condition) > 0])])
    error_message = "Every trust needs a condition."
  }
  assert {
    condition     = alltrue([for p in aws_iam_role_policy.this : alltrue([for s in jsondecode(p.policy).Statement : alltrue([for a in flatten([s.Action]) : !endswith(a, "*")])])])
    error_message = "No role's policy may hold a wildcard action."
  }
  assert {
    condition     = contains(flatten([for s in jsondecode(aws_iam_policy.boundary.policy).Statement : s.Action if s.Effect == "Deny"]), "iam:*")
    error_message = "The boundary must deny every change of roles."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.database_login["task"].policy).Statement[0].Resource == "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/modelyard"
    error_message = "The service signs in as its own user of one database."
  }
}

run "roles_follow_the_choice" {
  command = plan
  module {
    source = "./modules/iam"
  }
  variables {
    compute            = "lambda"
    database           = "dynamodb"
    cache              = false
    create_config_role = false
  }

  assert {
    condition     = contains(keys(aws_iam_role.this), "function") && !contains(keys(aws_iam_role.this), "task") && !contains(keys(aws_iam_role.this), "rds_monitoring") && !contains(keys(aws_iam_role.this), "config")
    error_message = "Only the roles of the chosen stack exist."
  }
  assert {
    condition     = length([for s in jsondecode(aws_iam_role_policy.this["function"].policy).Statement : s if s.Sid == "Counters"]) == 1
    error_message = "Without Valkey the function may count in its table."
  }
}

run "only_named_analysts_may_read" {
  command = plan
  module {
    source = "./modules/iam"
  }
  variables {
    analysts = ["arn:aws:iam::123456789012:role/analysts"]
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.database_login["analytics"].policy).Statement[0].Resource == "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/modelyard_reader"
    error_message = "Analysts sign in as the reader."
  }
}

run "a_whole_account_is_no_analyst" {
  command = plan
  module {
    source = "./modules/iam"
  }
  variables {
    analysts = ["arn:aws:iam::123456789012:root"]
  }
  expect_failures = [var.analysts]
}

run "a_proxy_signs_in_by_token_or_by_its_one_secret" {
  command = plan
  module {
    source = "./modules/iam"
  }
  variables {
    compute              = "lambda"
    proxied              = true
    login_resource_id    = "prx-ABC"
    database_resource_id = "db-ABC"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.database_login["rds_proxy"].policy).Statement[0].Resource == "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/modelyard" && !contains(keys(aws_iam_role_policy.this), "rds_proxy")
    error_message = "By token: as the service's user of the one instance, and no secret may be read."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.database_login["function"].policy).Statement[0].Resource == "arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-ABC/modelyard"
    error_message = "The function signs in to the proxy alone."
  }
}

run "unknown_compute_and_database_are_refused" {
  command = plan
  module {
    source = "./modules/iam"
  }
  variables {
    compute     = "kubernetes"
    database    = "oracle"
    proxy_login = "password"
  }
  expect_failures = [var.compute, var.database, var.proxy_login]
}
