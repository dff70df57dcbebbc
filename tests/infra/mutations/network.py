"""Broken networks: SEC-2 and SEC-7."""

from mutations.registry import BARE, FARGATE, FUNCTION, INSTANCES, broken

MAIN, GROUPS, ENDPOINTS = "security/main", "security/groups", "security/endpoints"
REFERENCE = (
    "  referenced_security_group_id = aws_security_group.this[each.value.from].id\n"
    '  description                  = "From '
)

MUTATIONS = (
    broken(
        "public database",
        "SEC-2.database_is_not_public",
        BARE,
        "database/rds",
        "publicly_accessible    = false",
        "publicly_accessible    = true",
    ),
    broken(
        "everybody comes in",
        "SEC-2.nothing_comes_in_from_anywhere",
        BARE,
        GROUPS,
        REFERENCE,
        '  cidr_ipv4                    = "0.0.0.0/0"\n  description                  = "From ',
    ),
    broken(
        "database open to the network",
        "SEC-2.data_is_reached_from_groups_only",
        BARE,
        GROUPS,
        REFERENCE,
        '  cidr_ipv4                    = "10.64.0.0/20"\n  description                  = "From ',
    ),
    broken(
        "public addresses in the data subnets",
        "SEC-2.data_subnets_have_no_way_out",
        BARE,
        MAIN,
        "cidr_block              = cidrsubnet(local.tiers.data, 2, each.value)\n  map_public_ip_on_launch = false",
        "cidr_block              = cidrsubnet(local.tiers.data, 2, each.value)\n  map_public_ip_on_launch = true",
    ),
    broken(
        "one zone",
        "SEC-7.network_spans_zones",
        BARE,
        MAIN,
        "availability_zone       = each.key\n  cidr_block              = cidrsubnet(local.tiers.private",
        "availability_zone       = keys(local.zones)[0]\n  cidr_block              = cidrsubnet(local.tiers.private",
    ),
    broken(
        "a gateway to the internet",
        "SEC-7.no_way_out_but_endpoints",
        BARE,
        MAIN,
        "# One table for all data subnets",
        'resource "aws_internet_gateway" "way_out" {\n'
        "  vpc_id = aws_vpc.this.id\n"
        "}\n"
        "\n"
        "# One table for all data subnets",
    ),
    broken(
        "default group in use",
        "SEC-7.subnets_have_access_lists",
        BARE,
        MAIN,
        'resource "aws_default_security_group" "this" {\n  vpc_id = aws_vpc.this.id\n',
        'resource "aws_default_security_group" "this" {\n'
        "  vpc_id = aws_vpc.this.id\n"
        "  ingress {\n"
        '    protocol  = "-1"\n'
        "    self      = true\n"
        "    from_port = 0\n"
        "    to_port   = 0\n"
        "  }\n",
    ),
    broken(
        "rules without a word",
        "SEC-7.rules_are_described",
        BARE,
        GROUPS,
        '  description       = "To S3 through its gateway endpoint: models and image layers"\n',
        "",
    ),
    broken(
        "a way out for everything",
        "SEC-7.egress_is_narrow",
        BARE,
        GROUPS,
        '  prefix_list_id    = aws_vpc_endpoint.gateway["s3"].prefix_list_id\n',
        '  cidr_ipv4         = "0.0.0.0/0"\n',
    ),
    broken(
        "secrets unreachable",
        "SEC-7.endpoints_reach_what_is_needed",
        BARE,
        ENDPOINTS,
        '    ["secretsmanager"],\n',
        "    [],\n",
    ),
    broken(
        "agent unreachable",
        "SEC-7.endpoints_reach_what_is_needed",
        INSTANCES,
        ENDPOINTS,
        '["ecs", "ecs-agent", "ecs-telemetry"]',
        '["ecs", "ecs-telemetry"]',
    ),
    broken(
        "endpoint for everybody",
        "SEC-7.endpoints_have_policies",
        BARE,
        ENDPOINTS,
        "        Action    = local.interface_statements[each.key].actions\n"
        "        Resource  = local.interface_statements[each.key].resources\n        Condition = local.own\n",
        '        Action    = "*"\n        Resource  = "*"\n',
    ),
    broken("traffic unseen", "SEC-7.traffic_is_recorded", BARE, MAIN, '"ALL"', '"REJECT"'),
    broken(
        "public load balancer",
        "SEC-7.service_is_private",
        FARGATE,
        "ecs/alb",
        "internal                   = true",
        "internal                   = false",
    ),
    broken(
        "public tasks",
        "SEC-7.service_is_private",
        FARGATE,
        "ecs/service",
        "assign_public_ip = false",
        "assign_public_ip = true",
    ),
    broken(
        "function outside the network",
        "SEC-7.function_is_in_the_network",
        FUNCTION,
        "lambda/main",
        "  vpc_config {\n"
        "    subnet_ids         = var.subnet_ids\n"
        '    security_group_ids = [var.security_group_ids["function"]]\n'
        "  }\n",
        "",
    ),
    broken(
        "stolen instance tokens",
        "SEC-7.instances_are_closed",
        INSTANCES,
        "compute/capacity",
        'http_tokens                 = "required"',
        'http_tokens                 = "optional"',
    ),
    broken(
        "no firewall before the stage",
        "SEC-7.gateway_has_a_firewall",
        FARGATE,
        "apigateway/waf",
        'resource "aws_wafv2_web_acl_association" "stage" {\n',
        'resource "aws_wafv2_web_acl_association" "stage" {\n  count = 0\n\n',
    ),
)
