"""A stack with deletion protection, models and records in it, and a destroy that must not take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infraproof.combinations import Stack
from infraproof.terraform import LOCAL_BACKEND, Completed

from emulation.applying import apply, command, copied
from emulation.emulator import serving
from emulation.readback import Account

MODEL = "models/iris/1/model.onnx"
#: The emulator changes no lock of a bucket that isn't empty, which AWS does; a destroy would end there and never ask
#: for the bucket. So the locks leave the state beforehand: the refusal has to be the bucket's own.
LOCKS = "module.storage.aws_s3_bucket_object_lock_configuration.this"


@dataclass(frozen=True)
class Kept:
    """What a refused destroy said, and what the account still holds."""

    refused: Completed
    models: tuple[str, ...]
    databases: tuple[str, ...]
    records: int


def destroy_protected(stack: Stack, folder: Path, cli: str) -> Kept:
    """Apply a stack that is protected, put a model and a record into it, and try to destroy it.

    The record goes into each table that the emulator made: the counters, which share their block with the other two.
    """
    folder.mkdir()
    with serving(cli, folder) as emulator:
        applied = copied(stack, emulator, folder, cli)
        applied.stack = applied.stack.but("protected", deletion_protection=True)
        (applied.workspace.path / "backend_override.tf").write_text(LOCAL_BACKEND)
        applied.workspace.init()
        apply(applied, "apply")
        account = Account(emulator)
        bucket = next(name for name in account.buckets() if "-artifacts-" in name)
        # The emulator reads "deny unless TLS" without its condition: a model can only be put in with the policy off.
        account.client("s3").delete_bucket_policy(Bucket=bucket)
        account.client("s3").put_object(Bucket=bucket, Key=MODEL, Body=b"weights")
        tables = list(account.tables())
        for table in tables:
            put_record(account, table)
        applied.workspace.run("state", "rm", LOCKS).checked("state rm")
        refused = command(applied, "destroy", "-auto-approve", "-parallelism=30")
        return Kept(refused, models(account, bucket), databases(account), sum(records(account, t) for t in tables))


def put_record(account: Account, table: str) -> None:
    """One item with the table's own keys."""
    client = account.client("dynamodb")
    keys = [key["AttributeName"] for key in client.describe_table(TableName=table)["Table"]["KeySchema"]]
    kinds = client.describe_table(TableName=table)["Table"]["AttributeDefinitions"]
    types = {kind["AttributeName"]: kind["AttributeType"] for kind in kinds}
    client.put_item(TableName=table, Item={key: {types[key]: "1"} for key in keys})


def models(account: Account, bucket: str) -> tuple[str, ...]:
    """The objects that the bucket still holds."""
    found = account.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return tuple(item["Key"] for item in found)


def databases(account: Account) -> tuple[str, ...]:
    """The states of the RDS instances that are still there."""
    instances = account.client("rds").describe_db_instances()["DBInstances"]
    return tuple(instance["DBInstanceStatus"] for instance in instances)


def records(account: Account, table: str) -> int:
    """How many items the table still holds."""
    return int(account.client("dynamodb").scan(TableName=table, Select="COUNT")["Count"])
