"""SEC-1 and SEC-6: encryption in transit and at rest, everywhere, with keys of our own that rotate."""

from __future__ import annotations

from infraproof.plan import Plan, Policy, Resource, listed
from readers.service import functions

from checks.api import integrations
from checks.registry import Problems, at_least, check, each, on_dynamodb, on_ec2, on_ecs, on_lambda, on_rds, with_image

TLS_POLICIES = ("ELBSecurityPolicy-TLS13-1-2", "ELBSecurityPolicy-TLS13-1-3", "ELBSecurityPolicy-TLS-1-2")


@check("SEC-1")
def keys_rotate(plan: Plan) -> Problems:
    """Every key rotates and waits 30 days before it is deleted (a week at least where protection is off)."""
    keys, least = plan.of("aws_kms_key"), 7 if plan.variable("deletion_protection") is False else 30
    return [
        *at_least(5, keys, "keys, one a purpose"),
        *each(keys, lambda item: item.get("enable_key_rotation") is True, "must rotate"),
        *each(keys, lambda item: (item.get("deletion_window_in_days") or 30) >= least, f"must wait {least} days"),
    ]


@check("SEC-1")
def keys_name_who_may_use_them(plan: Plan) -> Problems:
    """Every key has a policy of its own; only the account's root has kms:*, no role and no service."""
    problems = each(plan.of("aws_kms_key"), lambda item: item.is_set("policy"), "needs a policy")
    for policy in plan.policies:
        if policy.resource.type == "aws_kms_key":
            problems += [f"{policy.resource.address}: kms:* for more than the root" for s in too_wide(policy)]
    return problems


def too_wide(policy: Policy) -> list[object]:
    """The statements that allow every action of a key to somebody beside the account itself."""
    wide = [s for s in policy.statements if s["Effect"] == "Allow" and "kms:*" in listed(s.get("Action"))]
    return [s for s in wide if not all(is_root(principal) for principal in principals(s))]


def principals(statement: object) -> list[str]:
    """Every principal of a statement."""
    value = statement.get("Principal") if isinstance(statement, dict) else None
    if isinstance(value, str):
        return [value]
    return [str(name) for names in (value or {}).values() for name in listed(name_list(names))]


def name_list(names: object) -> list[object]:
    """The names of one kind of principal as a list."""
    return listed(names)


def is_root(principal: str) -> bool:
    """True for the account's own root, which delegates to IAM policies."""
    return principal.endswith(":root")


@check("SEC-1", on_ecs)
def listeners_speak_tls(plan: Plan) -> Problems:
    """With a domain, every listener of the load balancer is HTTPS with TLS 1.2 or newer."""
    listeners = plan.of("aws_lb_listener")
    if not plan.variable("domain"):
        return at_least(1, listeners, "listeners")
    return [
        *at_least(2, listeners, "listeners for production and test traffic"),
        *each(listeners, lambda item: item.get("protocol") == "HTTPS", "must be HTTPS"),
        *each(listeners, lambda item: str(item.get("ssl_policy")).startswith(TLS_POLICIES), "needs TLS 1.2 or newer"),
    ]


@check("SEC-1", on_ecs)
def tasks_are_reached_over_tls(plan: Plan) -> Problems:
    """The way from the load balancer to the tasks is HTTPS as well."""
    return each(plan.of("aws_lb_target_group"), lambda item: item.get("protocol") == "HTTPS", "must be HTTPS")


@check("SEC-1", on_rds)
def database_demands_tls(plan: Plan) -> Problems:
    """The database refuses a connection without TLS."""
    wanted = {"postgres": ("rds.force_ssl", "1"), "mysql": ("require_secure_transport", "1")}[plan.database]
    groups = [
        (p.get("name"), str(p.get("value"))) for g in plan.of("aws_db_parameter_group") for p in g.blocks("parameter")
    ]
    on = {wanted, (wanted[0], "ON")}
    return [] if on & set(groups) else [f"the parameter group must set {wanted[0]} = 1"]


@check("SEC-1", on_rds)
def database_is_encrypted(plan: Plan) -> Problems:
    """RDS encrypts storage and the managed master secret with keys of ours, and no password is in the state."""
    instances = plan.of("aws_db_instance")
    return [
        *each(instances, lambda item: item.get("storage_encrypted") is True, "must be encrypted"),
        *each(instances, lambda item: item.is_set("kms_key_id"), "must use our own key"),
        *each(instances, lambda item: item.get("manage_master_user_password") is True, "the password must be managed"),
        *each(instances, lambda item: not item.is_set("password"), "must not hold a password"),
        *each(instances, lambda item: item.is_set("master_user_secret_kms_key_id"), "its secret must use our own key"),
    ]


@check("SEC-1", on_dynamodb)
def tables_are_encrypted(plan: Plan) -> Problems:
    """Every table is encrypted with a key of ours."""
    tables = plan.of("aws_dynamodb_table")
    return [
        *each(tables, lambda item: item.get("server_side_encryption.enabled") is True, "must be encrypted"),
        *each(tables, lambda item: item.is_set("server_side_encryption.kms_key_arn"), "must use our own key"),
    ]


OWN_KEY = {
    "aws_cloudwatch_log_group": "kms_key_id",
    "aws_sns_topic": "kms_master_key_id",
    "aws_secretsmanager_secret": "kms_key_id",
    "aws_cloudtrail": "kms_key_id",
    "aws_backup_vault": "kms_key_arn",
    "aws_sqs_queue": "kms_master_key_id",
}


@check("SEC-1")
def everything_at_rest_uses_our_keys(plan: Plan) -> Problems:
    """Logs, topics, queues, secrets, trails and vaults are encrypted with keys of ours."""
    found = [item for kind in OWN_KEY for item in plan.of(kind)]
    return at_least(4, found, "encrypted things") + each(
        found, lambda item: item.is_set(OWN_KEY[item.type]), "must use our own key"
    )


@check("SEC-1", on_lambda)
def function_is_encrypted(plan: Plan) -> Problems:
    """The function's settings are encrypted with a key of ours."""
    return each(functions(plan), lambda item: item.is_set("kms_key_arn"), "must use our own key")


@check("SEC-1", on_ecs)
def task_storage_is_encrypted(plan: Plan) -> Problems:
    """The cluster encrypts the tasks' ephemeral storage, where spool and cache lie, with a key of ours."""
    path = "configuration.managed_storage_configuration.fargate_ephemeral_storage_kms_key_id"
    return each(plan.of("aws_ecs_cluster"), lambda item: item.is_set(path), "needs our key for ephemeral storage")


@check("SEC-1", with_image)
def certificates_are_verified(plan: Plan) -> Problems:
    """With a domain, the gateway speaks HTTPS to the load balancer and verifies its certificate."""
    if not plan.variable("domain"):
        return []
    problems = []
    for path, method, integration in integrations(plan):
        if "{{" in str(integration.get("uri")) and not str(integration["uri"]).startswith("https://"):
            problems.append(f"{method} {path}: plain HTTP inside")
        if "insecureSkipVerification" in str(integration):
            problems.append(f"{method} {path}: the certificate isn't verified")
    return problems


@check("SEC-1", on_rds)
def proxy_demands_tls(plan: Plan) -> Problems:
    """The database proxy before a function demands TLS and an IAM login."""
    proxies = plan.of("aws_db_proxy")
    needed = 1 if plan.compute == "lambda" else 0
    return [
        *at_least(needed, proxies, "database proxy"),
        *each(proxies, lambda item: item.get("require_tls") is True, "must demand TLS"),
        *each(proxies, takes_tokens_only, "must demand an IAM login"),
    ]


def takes_tokens_only(proxy: Resource) -> bool:
    """True when a client of the proxy can't sign in by a password."""
    logins = proxy.blocks("auth")
    by_secret = bool(logins) and all(login.get("iam_auth") == "REQUIRED" for login in logins)
    return by_secret or (not logins and proxy.get("default_auth_scheme") == "IAM_AUTH")


@check("SEC-1", on_rds)
def proxy_needs_no_password(plan: Plan) -> Problems:
    """Unless a secret was asked for, the proxy signs in to the database by token, and no password exists."""
    if (plan.variable("lambda") or {}).get("proxy_login", "iam") != "iam":
        return []
    secrets = [item for item in plan.of("aws_secretsmanager_secret") if item.name == "database_login"]
    return [
        *each(plan.of("aws_db_proxy"), lambda item: item.get("default_auth_scheme") == "IAM_AUTH", "must use tokens"),
        *[f"{item.address}: a password that nobody asked for" for item in secrets],
    ]


@check("SEC-1", lambda plan: plan.has_image and bool(plan.variable("domain")))
def public_name_speaks_tls12(plan: Plan) -> Problems:
    """The public name takes TLS 1.2 or newer: by default with forward secrecy only, and under its own name only."""
    names = plan.of("aws_api_gateway_domain_name")
    if plan.variable("domain").get("tls_policy") == "TLS_1_2":
        return each(names, lambda item: item.get("security_policy") == "TLS_1_2", "needs TLS 1.2 or newer")
    return [
        *at_least(1, names, "public name"),
        *each(names, lambda item: "_PFS_" in str(item.get("security_policy")), "needs forward secrecy"),
        *each(names, lambda item: item.get("endpoint_access_mode") == "STRICT", "must be strict about its name"),
    ]


@check("SEC-6")
def block_storage_is_encrypted_by_default(plan: Plan) -> Problems:
    """The account encrypts every new volume, with a key of ours, unless another stack already sees to it."""
    if (plan.variable("account") or {}).get("ebs_defaults") == "exists":
        return []
    return [
        *at_least(1, plan.of("aws_ebs_encryption_by_default"), "EBS encryption by default"),
        *each(plan.of("aws_ebs_encryption_by_default"), lambda item: item.get("enabled") is not False, "must be on"),
        *at_least(1, plan.of("aws_ebs_default_kms_key"), "default key of EBS"),
    ]


@check("SEC-6")
def snapshots_are_not_shared(plan: Plan) -> Problems:
    """Snapshots of volumes can't be shared publicly."""
    if (plan.variable("account") or {}).get("instance_defaults") == "exists":
        return []
    found = plan.of("aws_ebs_snapshot_block_public_access")
    return at_least(1, found, "snapshot block") + each(
        found, lambda item: item.get("state") == "block-all-sharing", "must block all sharing"
    )


@check("SEC-6", lambda plan: on_ec2(plan) and plan.has_image)
def instances_have_encrypted_volumes(plan: Plan) -> Problems:
    """Every volume of a launch template is encrypted with a key of ours."""
    templates = plan.of("aws_launch_template")
    texts = [block.text for block in plan.source_of("resource", "aws_launch_template", "compute")]
    named = all("kms_key_id" in text for text in texts)  # its value is known only after apply
    return [
        *at_least(1, templates, "launch template"),
        *each(templates, volumes_encrypted, "volumes must be encrypted"),
        *([] if named else ["the volumes of the launch template name no key"]),
    ]


def volumes_encrypted(template: Resource) -> bool:
    """True when a template maps volumes and each is encrypted."""
    mappings = template.blocks("block_device_mappings")
    sealed = all(str(ebs.get("encrypted")).lower() == "true" for m in mappings for ebs in listed(m.get("ebs")))
    return bool(mappings) and sealed
