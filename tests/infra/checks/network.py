"""SEC-2 and SEC-7: no public database, and a network in which each part reaches only what it needs."""

from __future__ import annotations

from infraproof.plan import Plan, Resource, listed

from checks.registry import Problems, at_least, check, each, on_ec2, on_ecs, on_lambda, on_rds, with_image

ANYWHERE = {"0.0.0.0/0", "::/0"}
INSTANCE_ENDPOINTS = {"ecs", "ecs-agent", "ecs-telemetry"}
TASK_ENDPOINTS = {"ecr.api", "ecr.dkr", "logs"}


def ingress(plan: Plan) -> list[Resource]:
    """Every rule that lets something in."""
    return plan.of("aws_vpc_security_group_ingress_rule")


@check("SEC-2", on_rds)
def database_is_not_public(plan: Plan) -> Problems:
    """The database has no public address."""
    instances = plan.of("aws_db_instance")
    return at_least(1, instances, "database") + each(
        instances, lambda item: item.get("publicly_accessible") is False, "must not be public"
    )


@check("SEC-2")
def nothing_comes_in_from_anywhere(plan: Plan) -> Problems:
    """No security group lets the whole internet in; the gateway is the only door."""
    rules = ingress(plan)
    inline = [block for group in plan.of("aws_security_group") for block in group.blocks("ingress")]
    problems = each(rules, lambda item: not from_anywhere(item), "lets the whole internet in")
    return problems + [f"inline ingress rule: {block}" for block in inline]


def from_anywhere(rule: Resource) -> bool:
    """True when a rule's source is every address."""
    return bool({rule.get("cidr_ipv4"), rule.get("cidr_ipv6")} & ANYWHERE)


@check("SEC-2")
def data_is_reached_from_groups_only(plan: Plan) -> Problems:
    """What the data subnets hold is reached from named security groups only, never from an address range."""
    rules = [rule for rule in ingress(plan) if any(word in rule.address for word in ("database", "cache", "data"))]
    needed = 0 if plan.database == "dynamodb" and plan.variable("valkey") == "none" else 1
    return [
        *at_least(needed, rules, "ingress rule of the database or cache"),
        *each(rules, lambda item: item.is_set("referenced_security_group_id"), "must name a security group"),
        *each(rules, lambda item: not item.get("cidr_ipv4") and not item.get("cidr_ipv6"), "must not name addresses"),
    ]


@check("SEC-2")
def data_subnets_have_no_way_out(plan: Plan) -> Problems:
    """No route leads from the data subnets to the internet, and no subnet gives out public addresses."""
    routes = [r for r in plan.of("aws_route") if r.get("destination_cidr_block") in ANYWHERE]
    out = [r for r in routes if "data" in r.address]
    inline = [t for t in plan.of("aws_route_table") if any(r.get("cidr_block") in ANYWHERE for r in t.blocks("route"))]
    public = [s for s in plan.of("aws_subnet") if s.get("map_public_ip_on_launch") is True]
    return [
        *each(out, lambda _: False, "leads from the data subnets to the internet"),
        *each([t for t in inline if "data" in t.address], lambda _: False, "leads to the internet"),
        *each(public, lambda _: False, "gives out public addresses"),
    ]


@check("SEC-7")
def network_spans_zones(plan: Plan) -> Problems:
    """Private and data subnets lie in at least two zones each."""
    problems = []
    for tier in ("private", "data"):
        subnets = [s for s in plan.of("aws_subnet") if tier in s.address]
        zones = {s.get("availability_zone") or s.get("availability_zone_id") or s.address for s in subnets}
        problems += at_least(2, zones, f"zones with a {tier} subnet")
    return problems


@check("SEC-7")
def no_way_out_but_endpoints(plan: Plan) -> Problems:
    """Unless NAT was asked for, the network has no gateway to the internet at all."""
    if (plan.variable("network") or {}).get("egress") == "nat":
        return []
    kinds = ("aws_internet_gateway", "aws_nat_gateway", "aws_eip", "aws_egress_only_internet_gateway")
    return each(plan.of(*kinds), lambda _: False, "isn't needed: endpoints reach what the service needs")


@check("SEC-7")
def subnets_have_access_lists(plan: Plan) -> Problems:
    """Every tier of subnets has its network ACL, with rules, and the default group and ACL allow nothing."""
    acls, groups = plan.of("aws_network_acl"), plan.of("aws_default_security_group")
    attached = sum(len(acl.get("subnet_ids") or []) for acl in acls)
    unknown = [acl for acl in acls if acl.is_set("subnet_ids")]
    linked = plan.of("aws_network_acl_association")
    return [
        *at_least(2, acls, "network ACLs, one a tier"),
        *([] if attached or unknown or linked else ["no subnet is attached to a network ACL"]),
        *at_least(1, groups, "default security group taken over"),
        *each(groups, lambda item: not item.blocks("ingress") and not item.blocks("egress"), "must allow nothing"),
        *each(plan.of("aws_default_network_acl"), lambda item: not item.blocks("ingress"), "must allow nothing"),
    ]


@check("SEC-7")
def rules_are_described(plan: Plan) -> Problems:
    """Every security group and every rule says in words what it is for."""
    rules = [*ingress(plan), *plan.of("aws_vpc_security_group_egress_rule")]
    groups = plan.of("aws_security_group")
    return at_least(2, groups, "security groups") + each(
        [*rules, *groups], lambda item: len(item.get("description") or "") > 8, "needs a description"
    )


@check("SEC-7")
def egress_is_narrow(plan: Plan) -> Problems:
    """Without NAT no rule lets traffic out to every address."""
    if (plan.variable("network") or {}).get("egress") == "nat":
        return []
    rules = plan.of("aws_vpc_security_group_egress_rule")
    inline = [block for group in plan.of("aws_security_group") for block in group.blocks("egress")]
    return each(rules, lambda item: not from_anywhere(item), "lets traffic out to every address") + [
        f"inline egress rule: {block}" for block in inline
    ]


def endpoints(plan: Plan) -> dict[str, Resource]:
    """The VPC endpoints by the short name of their service."""
    region = str(plan.variable("region"))
    return {str(e.get("service_name")).split(f"{region}.")[-1]: e for e in plan.of("aws_vpc_endpoint")}


@check("SEC-7")
def endpoints_reach_what_is_needed(plan: Plan) -> Problems:
    """All that is called has an endpoint; a function's image and log travel outside the network, a task's don't."""
    if (plan.variable("network") or {}).get("egress") == "nat":
        return []
    wanted = {"s3", "secretsmanager"} | (TASK_ENDPOINTS if plan.on_ecs else set())
    wanted |= INSTANCE_ENDPOINTS if on_ec2(plan) else set()
    wanted |= {"dynamodb"} if plan.database == "dynamodb" or plan.variable("valkey") == "none" else set()
    return [f"no endpoint for {name}" for name in sorted(wanted - set(endpoints(plan)))]


@check("SEC-7")
def endpoints_have_policies(plan: Plan) -> Problems:
    """Every endpoint has a policy, and none of them allows everything to everybody."""
    found = plan.of("aws_vpc_endpoint")
    problems = each(found, lambda item: item.is_set("policy"), "needs a policy")
    for policy in plan.policies:
        if policy.resource.type != "aws_vpc_endpoint":
            continue
        for statement in policy.statements:
            everything = "*" in listed(statement.get("Action")) and "*" in listed(statement.get("Resource"))
            if statement["Effect"] == "Allow" and everything and "Condition" not in statement:
                problems.append(f"{policy.resource.address}: allows everything to everybody")
    return problems


@check("SEC-7")
def traffic_is_recorded(plan: Plan) -> Problems:
    """A flow log records all traffic of the network."""
    logs = plan.of("aws_flow_log")
    return at_least(1, logs, "flow log") + each(logs, lambda item: item.get("traffic_type") == "ALL", "must record ALL")


@check("SEC-7", on_ecs)
def service_is_private(plan: Plan) -> Problems:
    """The load balancer is internal, drops malformed headers, and tasks have no public address."""
    balancers, services = plan.of("aws_lb"), plan.of("aws_ecs_service")
    return [
        *at_least(1, balancers, "load balancer"),
        *each(balancers, lambda item: item.get("internal") is True, "must be internal"),
        *each(balancers, lambda item: item.get("drop_invalid_header_fields") is True, "must drop malformed headers"),
        *each(
            services,
            lambda item: not item.get("network_configuration.assign_public_ip"),
            "must not get a public address",
        ),
    ]


@check("SEC-7", on_lambda)
def function_is_in_the_network(plan: Plan) -> Problems:
    """The service's function runs in the private subnets."""
    functions = [f for f in plan.of("aws_lambda_function") if f.get("package_type") == "Image"]
    return at_least(1, functions, "function") + each(
        functions, lambda item: item.is_set("vpc_config.subnet_ids"), "must run in the private subnets"
    )


@check("SEC-7", lambda plan: on_ec2(plan) and plan.has_image)
def instances_are_closed(plan: Plan) -> Problems:
    """Instances take session tokens only, one hop away, and have no public address."""
    templates = plan.of("aws_launch_template")
    return [
        *each(templates, lambda item: item.get("metadata_options.http_tokens") == "required", "must demand tokens"),
        *each(
            templates,
            lambda item: item.get("metadata_options.http_put_response_hop_limit") == 1,
            "tokens must not travel further than one hop",
        ),
        *each(templates, no_public_address, "must have no public address"),
    ]


def no_public_address(template: Resource) -> bool:
    """True when a template's interfaces refuse public addresses."""
    return str(template.get("network_interfaces.associate_public_ip_address")).lower() == "false"


@check("SEC-7", with_image)
def gateway_has_a_firewall(plan: Plan) -> Problems:
    """The stage stands behind a web ACL with managed rules and a rate bound."""
    acls = plan.of("aws_wafv2_web_acl")
    text = [str(acl.values.get("rule")) for acl in acls]
    return [
        *at_least(1, acls, "web ACL"),
        *at_least(1, plan.of("aws_wafv2_web_acl_association"), "association of the web ACL"),
        *at_least(1, [t for t in text if "AWSManagedRules" in t], "web ACL with managed rules"),
        *at_least(1, [t for t in text if "rate_based_statement" in t], "web ACL with a rate bound"),
        *at_least(1, plan.of("aws_wafv2_web_acl_logging_configuration"), "log of the web ACL"),
    ]
