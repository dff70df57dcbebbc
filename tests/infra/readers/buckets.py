"""Joins each S3 bucket of a plan with the resources that configure it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from infraproof.plan import Plan, Resource, listed


@dataclass(frozen=True)
class Bucket:
    """A bucket and its companions by resource type."""

    name: str
    resource: Resource
    parts: Mapping[str, list[Resource]]


def key_of(resource: Resource) -> str:
    """The for_each key of an address: companions of one bucket share it."""
    return resource.address.rsplit("[", 1)[1].rstrip("]") if resource.address.endswith("]") else ""


def buckets(plan: Plan) -> list[Bucket]:
    """Every bucket with its companions, matched by bucket name where it is known and by for_each key otherwise."""
    found = []
    for bucket in plan.of("aws_s3_bucket"):
        parts: dict[str, list[Resource]] = defaultdict(list)
        for resource in plan.resources:
            if resource.type.startswith("aws_s3_bucket_") and belongs(resource, bucket):
                parts[resource.type].append(resource)
        found.append(Bucket(str(bucket.get("bucket", bucket.address)), bucket, dict(parts)))
    return found


def belongs(part: Resource, bucket: Resource) -> bool:
    """True when the companion configures this bucket."""
    name = part.get("bucket")
    if name is not None:
        return bool(name == bucket.get("bucket"))
    return part.module == bucket.module and key_of(part) == key_of(bucket)


def denies(plan: Plan, bucket: Bucket, condition_key: str) -> bool:
    """True when the bucket's policy has a Deny for everybody under this condition key."""
    for policy in plan.policies:
        if policy.resource not in bucket.parts.get("aws_s3_bucket_policy", []):
            continue
        for statement in policy.statements:
            keys = {key for test in statement.get("Condition", {}).values() for key in test}
            everybody = statement.get("Principal") in ("*", {"AWS": "*"})
            if statement["Effect"] == "Deny" and everybody and condition_key in keys:
                return bool(listed(statement.get("Action")))
    return False
