"""The vendor's client, with every wait bounded."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import ArtifactsSettings
from modelyard.storage.aws.client import HTTPS, ProcessClient, is_private

_IN_THE_CLEAR = "The object store's endpoint speaks plain HTTP: use https, or an emulator on this machine."


def check_usable(settings: ArtifactsSettings) -> None:
    """SettingsError("setting_invalid") if the extra is missing or models would travel in the clear; imports nothing."""
    if importlib.util.find_spec("boto3") is None:
        raise SettingsError(
            "setting_invalid",
            "Artifacts in S3 need an extra: pip install 'modelyard[aws]'.",
            field="artifacts.url",
            expected="modelyard[aws] installed, or no artifacts.url",
        )
    if settings.endpoint_url is not None and not is_private(settings.endpoint_url):
        raise SettingsError("setting_invalid", _IN_THE_CLEAR, field="artifacts.endpoint_url", expected=HTTPS)


class Client(ProcessClient):
    """boto3's S3 client."""

    def __init__(self, settings: ArtifactsSettings) -> None:
        super().__init__(partial(_make, settings))


def _make(settings: ArtifactsSettings) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.connections,
        # storage/s3/retry.py alone tries again: it knows where an answer was cut, and the time that is left.
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Ranges carry no checksum, and every file is held to the manifest's SHA-256.
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session(region_name=settings.region)
    made = session.client("s3", endpoint_url=settings.endpoint_url, config=config)
    if not is_private(made.meta.endpoint_url):  # AWS_ENDPOINT_URL, or AWS's configuration, named it
        raise UnavailableError("store_unavailable", _IN_THE_CLEAR, field="AWS_ENDPOINT_URL", expected=HTTPS)
    made.meta.events.register("before-call.s3.HeadBucket", _ask_no_further)
    return made


def _ask_no_further(**_event: Any) -> None:
    """A redirection names the bucket's region, and botocore follows it. If it names none, botocore asks for the
    bucket's head; where a proxy redirects everything, that is redirected too, without end."""
    from botocore.exceptions import ClientError

    raise ClientError({"Error": {}, "ResponseMetadata": {"HTTPHeaders": {}}}, "HeadBucket")
