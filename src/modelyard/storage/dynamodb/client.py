"""The vendor's client, with every wait bounded."""

from __future__ import annotations

import importlib.util
from functools import lru_cache, partial
from typing import Any

from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings
from modelyard.storage.aws.client import HTTPS, ProcessClient, is_private

CONNECT_TIMEOUT_S = 3.0
CONNECTIONS = 10
"""Requests at once of one process: a drain writes with several threads."""
_IN_THE_CLEAR = "The database's endpoint speaks plain HTTP: use https, or an emulator on this machine."


def check_usable(settings: DatabaseSettings) -> None:
    """SettingsError("setting_invalid") if the extra is missing or records would travel in the clear; imports
    nothing."""
    if importlib.util.find_spec("botocore") is None:
        raise SettingsError(
            "setting_invalid",
            "DynamoDB needs an extra: pip install 'modelyard[aws]'.",
            field="database.url",
            expected="modelyard[aws] installed, or another database.url",
        )
    if settings.endpoint_url is not None and not is_private(settings.endpoint_url):
        raise SettingsError("setting_invalid", _IN_THE_CLEAR, field="database.endpoint_url", expected=HTTPS)


class Client(ProcessClient):
    """botocore's DynamoDB client."""

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__(partial(_make, settings))


def _make(settings: DatabaseSettings) -> Any:
    import botocore.session
    from botocore.config import Config

    config = Config(
        connect_timeout=min(CONNECT_TIMEOUT_S, settings.busy_timeout_s),
        read_timeout=settings.busy_timeout_s,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        # requests.py alone tries again: it knows the time that is left, and what a condition that failed means.
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,  # all requests are ours, and it costs as much as the rest of a request
    )
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    made = session.create_client(
        "dynamodb", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config
    )
    if not is_private(made.meta.endpoint_url):  # AWS_ENDPOINT_URL, or AWS's configuration, named it
        raise UnavailableError("store_unavailable", _IN_THE_CLEAR, field="AWS_ENDPOINT_URL", expected=HTTPS)
    return made


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Keeps the service's description, which takes longer to read than a client to make."""
    from botocore.loaders import create_loader

    return create_loader()
