"""The emulator as tests see it: one process for a session, tables of its own for each test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dynamo.serving import ASKED, FAULTS
from modelyard.core.settings import DatabaseSettings
from modelyard.storage.dynamodb.client import _make
from modelyard.storage.dynamodb.tables import EXPIRES_AT, INDEXES, KEYS
from objectstore.emulator import ENVIRONMENT

PATIENCE_S = 30


class Dynamo:
    """A running emulator."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        import botocore.session

        self.port = port
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        session = botocore.session.get_session()
        self.client: Any = session.create_client("dynamodb", endpoint_url=self.url)
        self.objects: Any = session.create_client("s3", endpoint_url=self.url)

    def tables(self) -> str:
        """The `database.url` of new tables, as Terraform makes them."""
        prefix = f"t{uuid.uuid4().hex[:12]}"
        for table, indexes in INDEXES.items():
            self.make(f"{prefix}-{table}", indexes)
        return f"dynamodb://{prefix}"

    def make(self, name: str, indexes: Any, keys: tuple[str, ...] = KEYS) -> None:
        """A table."""
        named = sorted({*keys, *(key for pair in indexes.values() for key in pair)})
        given = {"GlobalSecondaryIndexes": [
            {"IndexName": index, "KeySchema": _schema(pair), "Projection": {"ProjectionType": "ALL"}}
            for index, pair in indexes.items()
        ]} if indexes else {}  # fmt: skip
        self.client.create_table(
            TableName=name,
            KeySchema=_schema(keys),
            AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in named],
            BillingMode="PAY_PER_REQUEST",
            **given,
        )

    def counters(self, keys: tuple[str, ...] = ("pk",)) -> str:
        """The name of a new table of counters, as Terraform makes it."""
        name = f"t{uuid.uuid4().hex[:12]}-counters"
        self.make(name, {}, keys)
        return name

    def drop(self, url: str) -> None:
        """Removes the tables of a URL."""
        for table in INDEXES:
            self.client.delete_table(TableName=f"{url.removeprefix('dynamodb://')}-{table}")

    def settings(self, url: str, **more: Any) -> DatabaseSettings:
        """Settings of a store in these tables."""
        return DatabaseSettings(url=url, endpoint_url=self.url, **{"busy_timeout_s": 30, **more})

    def variables(self, url: str) -> dict[str, str]:
        """The same as a process's environment; nothing expires by itself."""
        return {
            "MODELYARD_DATABASE__URL": url,
            "MODELYARD_DATABASE__ENDPOINT_URL": self.url,
            "MODELYARD_DATABASE__BUSY_TIMEOUT_S": "30",
            "MODELYARD_RETENTION__DAYS": "0",
        }

    def expire(self, url: str, now: float) -> int:
        """Does what the service does some time after items expire; how many went."""
        table = f"{url.removeprefix('dynamodb://')}-predictions"
        items = self.client.scan(TableName=table)["Items"]
        gone = [item for item in items if EXPIRES_AT in item and float(item[EXPIRES_AT]["N"]) <= now]
        for item in gone:
            self.client.delete_item(TableName=table, Key={name: item[name] for name in KEYS})
        return len(gone)

    def asked(self) -> list[dict[str, Any]]:
        """`target` and `request` of what it was asked since the last call."""
        with urllib.request.urlopen(self.url + ASKED, timeout=PATIENCE_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def fail(self, *faults: dict[str, Any]) -> None:
        """Fails from now on: `times` requests of `target` ("" for any) with `status` and `code`, `applied` or not; or
        leaves half of them `unprocessed`."""
        request = urllib.request.Request(self.url + FAULTS, json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()


def _schema(keys: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=False)]


@contextmanager
def emulating() -> Iterator[Dynamo]:
    """A running emulator, with AWS's variables pointing nowhere else, gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        # A client takes longer to make than most tests; what is forked makes its own.
        made = lru_cache(maxsize=None)(lambda settings, _pid, make=_make: make(settings))
        patch.setattr("modelyard.storage.dynamodb.client._make", lambda settings: made(settings, os.getpid()))
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        tests = str(Path(__file__).parent.parent)
        search = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-m", "dynamo.serving"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tests,
            env={**os.environ, "PYTHONPATH": search},
        )
        try:
            assert process.stdout is not None
            yield Dynamo(int(process.stdout.readline()), process)
        finally:
            process.kill()
            process.wait(PATIENCE_S)
            assert process.stdout is not None
            process.stdout.close()
