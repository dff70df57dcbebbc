"""Moto's server over real HTTP, with one bucket per test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from modelyard.core.settings import ArtifactsSettings

REGION = "us-east-1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
"""What a process needs to use it."""


class Emulator:
    """A running emulator."""

    def __init__(self, port: int) -> None:
        import boto3

        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client: Any = boto3.session.Session().client("s3", endpoint_url=self.url)

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"models-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def settings(self, bucket: str, **more: Any) -> ArtifactsSettings:
        """Settings of a store in it."""
        given = {"url": f"s3://{bucket}/models", "endpoint_url": self.url, "part_bytes": 5 * 1024 * 1024, **more}
        return ArtifactsSettings(**given)

    def keys(self, bucket: str) -> dict[str, int]:
        """Every object's key and size."""
        listed = self.client.list_objects_v2(Bucket=bucket).get("Contents", ())
        return {each["Key"]: each["Size"] for each in listed}


@contextmanager
def emulated() -> Iterator[Emulator]:
    """Starts moto's server on a free port, with AWS's variables pointing nowhere else, and stops it."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            yield Emulator(server.get_host_and_port()[1])
        finally:
            server.stop()
