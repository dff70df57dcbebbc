"""STORE-1 to STORE-4: the buckets and what models need of them."""

from __future__ import annotations

from infraproof.plan import Plan
from readers.buckets import Bucket, buckets, denies

from checks.registry import Problems, at_least, check, each, on_ecs, on_lambda

LOG_DELIVERY_SSE = "AES256"


def for_each_bucket(plan: Plan, part: str, sentence: str) -> Problems:
    """A problem for every bucket that lacks one of its companion resources."""
    return [f"{bucket.name}: {sentence}" for bucket in buckets(plan) if not bucket.parts.get(part)]


def artifacts(plan: Plan) -> list[Bucket]:
    """The bucket of model artifacts."""
    return [bucket for bucket in buckets(plan) if "-artifacts-" in bucket.name]


@check("STORE-1")
def buckets_are_private(plan: Plan) -> Problems:
    """Every bucket blocks public access in all four ways and takes ownership of what others write."""
    flags = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    blocks = plan.of("aws_s3_bucket_public_access_block")
    owners = plan.of("aws_s3_bucket_ownership_controls")
    return [
        *at_least(1, buckets(plan), "buckets"),
        *for_each_bucket(plan, "aws_s3_bucket_public_access_block", "no public access block"),
        *each(blocks, lambda item: all(item.get(flag) is True for flag in flags), "all four flags must be true"),
        *for_each_bucket(plan, "aws_s3_bucket_ownership_controls", "no ownership controls"),
        *each(
            owners,
            lambda item: item.get("rule.object_ownership") == "BucketOwnerEnforced",
            "must be BucketOwnerEnforced",
        ),
    ]


@check("STORE-1")
def buckets_are_encrypted(plan: Plan) -> Problems:
    """Every bucket encrypts with a key of ours and a bucket key; only log delivery, limited to SSE-S3, may not."""
    problems = for_each_bucket(plan, "aws_s3_bucket_server_side_encryption_configuration", "no encryption")
    for bucket in buckets(plan):
        for item in bucket.parts.get("aws_s3_bucket_server_side_encryption_configuration", []):
            algorithm = item.get("rule.apply_server_side_encryption_by_default.sse_algorithm")
            key = item.is_set("rule.apply_server_side_encryption_by_default.kms_master_key_id")
            delivery = "-logs-" in bucket.name and algorithm == LOG_DELIVERY_SSE
            if not delivery and (algorithm != "aws:kms" or not key or item.get("rule.bucket_key_enabled") is not True):
                problems.append(f"{item.address}: needs aws:kms, our key and a bucket key")
    return problems


@check("STORE-1")
def buckets_refuse_plain_connections(plan: Plan) -> Problems:
    """Every bucket's policy denies requests without TLS and with TLS before 1.2."""
    problems = for_each_bucket(plan, "aws_s3_bucket_policy", "no policy")
    for bucket in buckets(plan):
        if not denies(plan, bucket, "aws:SecureTransport"):
            problems.append(f"{bucket.name}: plain connections are not denied")
        if not denies(plan, bucket, "s3:TlsVersion"):
            problems.append(f"{bucket.name}: TLS before 1.2 is not denied")
    return problems


@check("STORE-1")
def artifacts_refuse_other_keys(plan: Plan) -> Problems:
    """The artifact bucket's policy denies uploads under any key but its own."""
    key = "s3:x-amz-server-side-encryption"
    return [
        f"{bucket.name}: uploads under another key are not denied"
        for bucket in artifacts(plan)
        if not denies(plan, bucket, key)
    ]


@check("STORE-1")
def access_is_logged(plan: Plan) -> Problems:
    """Access to artifacts and audit records is logged to the log bucket."""
    wanted = [bucket for bucket in buckets(plan) if "-logs-" not in bucket.name]
    return [f"{bucket.name}: access isn't logged" for bucket in wanted if not bucket.parts.get("aws_s3_bucket_logging")]


@check("STORE-2")
def versions_are_kept(plan: Plan) -> Problems:
    """Every bucket is versioned: an overwritten or deleted artifact can be had back."""
    items = plan.of("aws_s3_bucket_versioning")
    return [
        *for_each_bucket(plan, "aws_s3_bucket_versioning", "not versioned"),
        *each(items, lambda item: item.get("versioning_configuration.status") == "Enabled", "must be Enabled"),
    ]


@check("STORE-2")
def versions_cannot_be_rewritten(plan: Plan) -> Problems:
    """The artifact bucket holds objects under lock, so that not even its owner rewrites a version in passing."""
    return [
        f"{bucket.name}: no object lock"
        for bucket in artifacts(plan)
        if bucket.resource.get("object_lock_enabled") is not True
    ]


@check("STORE-2")
def buckets_survive_a_slip(plan: Plan) -> Problems:
    """No bucket that still holds objects is deleted by Terraform while deletion protection is on."""
    if plan.variable("deletion_protection") is False:
        return []
    return each(plan.of("aws_s3_bucket"), lambda item: not item.get("force_destroy"), "force_destroy must be off")


@check("STORE-3")
def artifacts_come_through_the_gateway_endpoint(plan: Plan) -> Problems:
    """S3 is reached by a gateway endpoint (free, without a NAT's bottleneck) from the private route tables."""
    endpoints = [e for e in plan.of("aws_vpc_endpoint") if str(e.get("service_name", "")).endswith(".s3")]
    gateways = [e for e in endpoints if e.get("vpc_endpoint_type") == "Gateway"]
    routed = [e for e in gateways if e.is_set("route_table_ids")]
    linked = plan.of("aws_vpc_endpoint_route_table_association")
    return [
        *at_least(1, gateways, "S3 gateway endpoint"),
        *at_least(1, routed or linked, "route tables on the S3 endpoint"),
    ]


@check("STORE-3", on_ecs)
def cache_holds_the_largest_model_twice(plan: Plan) -> Problems:
    """A Fargate task's volume holds the largest model twice: the one that serves and the one that takes over."""
    largest = (plan.variable("load") or {}).get("largest_model_mb") or 5000
    tasks = [t for t in plan.of("aws_ecs_task_definition") if "FARGATE" in (t.get("requires_compatibilities") or [])]
    return each(
        tasks,
        lambda item: (item.get("ephemeral_storage.size_in_gib") or 0) * 1024 >= 2 * largest,
        f"needs 2 x {largest} MB",
    )


@check("STORE-3", on_lambda)
def function_has_room_for_a_model(plan: Plan) -> Problems:
    """The function's scratch space is larger than the 512 MB default, so that a 100 MB model and its successor fit."""
    functions = [f for f in plan.of("aws_lambda_function") if f.get("package_type") == "Image"]
    return each(functions, lambda item: (item.get("ephemeral_storage.size") or 512) > 512, "needs more than 512 MB")


@check("STORE-4")
def any_format_may_be_stored(plan: Plan) -> Problems:
    """No bucket policy looks at the name of an object: every format that the service takes can be stored."""
    problems = []
    for bucket in artifacts(plan):
        for policy in plan.policies:
            if policy.resource in bucket.parts.get("aws_s3_bucket_policy", []):
                problems += [f"{bucket.name}: a statement filters by suffix" for s in policy.statements if by_suffix(s)]
    return problems + at_least(1, artifacts(plan), "artifact bucket")


def by_suffix(statement: object) -> bool:
    """True when a policy statement names file suffixes."""
    text = str(statement)
    return any(f"*{suffix}" in text for suffix in (".onnx", ".pt", ".pkl", ".h5", ".json", ".zip", ".bin"))
