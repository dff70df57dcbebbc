"""SEC-3: least privilege, read from every policy document of the plan and from the sources' comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from infraproof.plan import Plan, Policy, Values, listed
from readers.service import container

from checks.encryption import principals
from checks.registry import Problems, at_least, check, each, on_ecs, with_image

#: Actions for which AWS knows no resource: `Resource = "*"` is the only way to allow them.
WITHOUT_RESOURCE = re.compile(
    r"^(ecr:GetAuthorizationToken|xray:Put\w+|xray:GetSampling\w+|cloudwatch:PutMetricData|ec2:Describe\w+"
    r"|ec2:(Create|Delete|Modify)NetworkInterface\w*|ec2:(Una|A)ssignPrivateIpAddresses|logs:(Create|Update|Delete|Get|List)LogDelivery"
    r"|logs:DescribeLogGroups|logs:PutResourcePolicy|logs:DescribeResourcePolicies|elasticloadbalancing:Describe\w+|autoscaling:Describe\w+"
    r"|ecs:(DiscoverPollEndpoint|Poll|DescribeTaskDefinition|DeregisterTaskDefinition|RegisterTaskDefinition|ListTaskDefinitions)"
    r"|ce:\w+|budgets:View\w*|sts:GetCallerIdentity|config:\w+|tag:Get\w+|servicediscovery:\w+|cloudwatch:Describe\w+|cloudwatch:GetMetric\w+"
    r"|application-autoscaling:\w+|backup:\w+|s3:ListAllMyBuckets)$"
)
#: Policies attached to one resource name it by being there: "*" means "this resource".
OWN_RESOURCE = {
    "aws_kms_key",
    "aws_kms_key_policy",
    "aws_vpc_endpoint",
    "aws_ecr_repository_policy",
    "aws_secretsmanager_secret_policy",
    "aws_sns_topic_policy",
    "aws_sqs_queue_policy",
    "aws_backup_vault_policy",
    "aws_api_gateway_rest_api_policy",
    "aws_api_gateway_rest_api",
}
BOUNDARY = "boundary"


def allowed(plan: Plan) -> Iterator[tuple[Policy, Values]]:
    """Every Allow statement with the policy it stands in."""
    for policy in plan.policies:
        for statement in policy.statements:
            if statement["Effect"] == "Allow":
                yield policy, statement


def is_boundary(policy: Policy) -> bool:
    """True for the permission boundary: it grants nothing, it only caps."""
    return BOUNDARY in policy.resource.address


@check("SEC-3")
def policies_are_known_at_plan_time(plan: Plan) -> Problems:
    """Every role and policy document can be read before anything is applied: names come before ARNs."""
    kinds = ("aws_iam_role_policy", "aws_iam_policy", "aws_s3_bucket_policy", "aws_sns_topic_policy")
    # The database's own id is part of its login's ARN, and only AWS can give it.
    found = [item for item in plan.of(*kinds) if "database" not in item.address and "login" not in item.address]
    return each(found, lambda item: isinstance(item.get("policy"), str), "isn't known at plan time")


@check("SEC-3")
def no_action_is_a_wildcard(plan: Plan) -> Problems:
    """No statement allows `*` or a whole service; a key's root statement and the boundary are the only exceptions."""
    problems = []
    for policy, statement in allowed(plan):
        wide = [a for a in listed(statement.get("Action")) if a == "*" or a.endswith(":*")]
        root = policy.resource.type.startswith("aws_kms_key") and all(
            p.endswith(":root") for p in principals(statement)
        )
        endpoint = policy.resource.type == "aws_vpc_endpoint" and "Condition" in statement
        if wide and not root and not endpoint and not is_boundary(policy):
            problems.append(f"{policy.resource.address} {statement.get('Sid', '')}: allows {wide}")
        if "NotAction" in statement and not is_boundary(policy):
            problems.append(f"{policy.resource.address}: allows by NotAction")
    return problems


@check("SEC-3")
def no_resource_is_a_wildcard(plan: Plan) -> Problems:
    """`Resource = "*"` stands only where AWS knows no resource for the action."""
    problems = []
    for policy, statement in allowed(plan):
        if policy.resource.type in OWN_RESOURCE or is_boundary(policy) or "*" not in listed(statement.get("Resource")):
            continue
        wide = [a for a in listed(statement.get("Action")) if not WITHOUT_RESOURCE.match(a)]
        problems += [f"{policy.resource.address} {statement.get('Sid', '')}: {a} on every resource" for a in wide]
    return problems


@check("SEC-3")
def wildcards_have_written_reasons(plan: Plan) -> Problems:
    """Every `"*"` resource in the sources has a comment in its statement or just above it that says why."""
    problems = []
    for block in plan.blocks:
        lines = block.text.splitlines()
        for number, line in enumerate(lines):
            own = block.file.name == "keys.tf" or block.labels[:1] == (
                "aws_kms_key",
            )  # in a key's policy "*" is the key itself
            if re.search(r"\bResource\s*=\s*\[?\"\*\"", line) and not own and not commented(lines, number):
                problems.append(f"{block.file.name}:{block.line + number}: a wildcard without a reason")
    return problems


def commented(lines: list[str], number: int) -> bool:
    """True when a comment stands on the line, or within the statement above it."""
    if "#" in lines[number]:
        return True
    for above in range(number - 1, max(-1, number - 14), -1):
        if "#" in lines[above]:
            return True
        if re.match(r"^\s*(Statement\b|})", lines[above]):
            return False
    return False


@check("SEC-3")
def roles_have_a_boundary(plan: Plan) -> Problems:
    """Every role is capped by the boundary; Config's recorder, which reads every service, by AWS's own policy."""
    roles = [role for role in plan.of("aws_iam_role") if not role.address.endswith('["config"]')]
    return at_least(4, roles, "roles") + each(
        roles, lambda item: item.is_set("permissions_boundary"), "needs the boundary"
    )


#: Services that call without a source that a trust could name.
NO_SOURCE = {"ec2.amazonaws.com", "lambda.amazonaws.com"}


@check("SEC-3")
def trusts_name_their_caller(plan: Plan) -> Problems:
    """A role that a service assumes says for which account or resource (the confused deputy)."""
    problems = []
    for policy in plan.policies:
        if policy.resource.type != "aws_iam_role" or policy.attribute != "assume_role_policy":
            continue
        for statement in policy.statements:
            keys = {key for test in statement.get("Condition", {}).values() for key in test}
            services = {p for p in principals(statement) if p.endswith(".amazonaws.com")}
            if services - NO_SOURCE and not keys & {"aws:SourceAccount", "aws:SourceArn", "AWS:SourceAccount"}:
                problems.append(f"{policy.resource.address}: any account's {sorted(services)} may assume it")
            if "*" in principals(statement):
                problems.append(f"{policy.resource.address}: anybody may assume it")
    return problems


@check("SEC-3")
def passing_roles_is_bounded(plan: Plan) -> Problems:
    """iam:PassRole names the roles and the service they may be passed to."""
    problems = []
    for policy, statement in allowed(plan):
        if "iam:PassRole" not in listed(statement.get("Action")) or is_boundary(policy):
            continue
        if "iam:PassedToService" not in str(statement.get("Condition", {})):
            problems.append(f"{policy.resource.address}: passes roles to any service")
        if "*" in listed(statement.get("Resource")):
            problems.append(f"{policy.resource.address}: passes any role")
    return problems


CLOSED = (
    "iam:CreateUser",
    "iam:CreateAccessKey",
    "iam:PutRolePolicy",
    "iam:DeleteRolePermissionsBoundary",
    "cloudtrail:StopLogging",
    "kms:ScheduleKeyDeletion",
    "kms:PutKeyPolicy",
    "s3:PutBucketPolicy",
    "config:StopConfigurationRecorder",
)


@check("SEC-3")
def boundary_closes_the_doors(plan: Plan) -> Problems:
    """Below the permission boundary nobody makes users or keys, lifts the boundary, stops the audit or deletes keys."""
    found = [p for p in plan.policies if is_boundary(p) and p.resource.type == "aws_iam_policy"]
    problems = [f"{p.resource.address}: leaves {action} open" for p in found for action in CLOSED if open_to(p, action)]
    return problems + at_least(1, found, "permission boundary")


def open_to(policy: Policy, action: str) -> bool:
    """True when a policy allows an action and doesn't deny it everywhere."""
    hits = [s for s in policy.statements if any(fnmatchcase(action, pattern) for pattern in listed(s.get("Action")))]
    denied = any(s["Effect"] == "Deny" and "Condition" not in s and "*" in listed(s.get("Resource")) for s in hits)
    return not denied and any(s["Effect"] == "Allow" for s in hits)


@check("SEC-3")
def no_long_lived_credentials(plan: Plan) -> Problems:
    """No user, access key or login profile is planned, and no key pair for SSH."""
    kinds = ("aws_iam_user", "aws_iam_access_key", "aws_iam_user_login_profile", "aws_key_pair", "aws_iam_user_policy")
    named = [t for t in plan.of("aws_launch_template") if t.get("key_name")]
    return each(plan.of(*kinds) + named, lambda _: False, "long-lived credentials aren't allowed")


@check("SEC-3", with_image)
def execution_and_task_roles_differ(plan: Plan) -> Problems:
    """What starts a container and what it may do itself are two roles."""
    tasks = plan.of("aws_ecs_task_definition")
    both = each(
        tasks, lambda item: item.is_set("execution_role_arn") and item.is_set("task_role_arn"), "needs two roles"
    )
    return both + each(tasks, roles_differ, "the two roles must differ")


def roles_differ(task: object) -> bool:
    """True unless both roles come from the same expression or ARN."""
    values = getattr(task, "values", {})
    expressions = getattr(task, "expressions", {})
    execution, own = values.get("execution_role_arn"), values.get("task_role_arn")
    if execution and own:
        return bool(execution != own)
    return bool(expressions.get("execution_role_arn") != expressions.get("task_role_arn"))


HARDENED = {
    "readonlyRootFilesystem": True,
    "user": "10001",
    "privileged": False,
    "stopTimeout": 120,
    "linuxParameters.capabilities.drop": ["ALL"],
    "logConfiguration.options.mode": "non-blocking",
    "logConfiguration.logDriver": "awslogs",
}


@check("SEC-3", on_ecs)
def container_is_hardened(plan: Plan) -> Problems:
    """An ordinary user on a read-only root, without capabilities; two minutes to drain; no waiting for a log."""
    found = container(plan)
    whole = {path: walk_to(found, path) for path in HARDENED}
    return [
        f"{path} is {whole[path]!r}, expected {wanted!r}" for path, wanted in HARDENED.items() if whole[path] != wanted
    ]


def walk_to(value: object, path: str) -> object:
    """Follow a dotted path through nested objects; None where it ends early."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
