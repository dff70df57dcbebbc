"""The vendor's client, with every wait bounded."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import threading
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings

CONNECT_TIMEOUT_S = 3.0
CONNECTIONS = 10
"""Requests at once of one process: a drain writes with several threads."""
_IN_THE_CLEAR = "The database's endpoint speaks plain HTTP: use https, or an emulator on this machine."
_HTTPS = "an address that begins with https://"


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
    if settings.endpoint_url is not None and not _is_private(settings.endpoint_url):
        raise SettingsError("setting_invalid", _IN_THE_CLEAR, field="database.endpoint_url", expected=_HTTPS)


class Client:
    """botocore's DynamoDB client, made at the first use in each process: its connections must not be shared over a
    fork."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: Any = None
        self._pid = 0

    def get(self) -> Any:
        """The client; it may be used by several threads."""
        with self._lock:
            if self._pid != os.getpid():
                self._made, self._pid = _make(self._settings), os.getpid()
            return self._made

    def close(self) -> None:
        """Closes the connections; the next use makes new ones."""
        with self._lock:
            if self._made is not None and self._pid == os.getpid():
                self._made.close()
            self._made, self._pid = None, 0


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
    if not _is_private(made.meta.endpoint_url):  # AWS_ENDPOINT_URL, or AWS's configuration, named it
        raise UnavailableError("store_unavailable", _IN_THE_CLEAR, field="AWS_ENDPOINT_URL", expected=_HTTPS)
    return made


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Keeps the service's description, which takes longer to read than a client to make."""
    from botocore.loaders import create_loader

    return create_loader()


def _is_private(endpoint: str) -> bool:
    """Encrypted, or on this machine."""
    parts = urlsplit(endpoint)
    return parts.scheme == "https" or _is_here(parts.hostname or "")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
