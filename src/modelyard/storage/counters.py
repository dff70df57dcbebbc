"""Which counter of limits the settings name."""

from __future__ import annotations

import asyncio
import os

from modelyard.core.clock import SystemClock
from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings, LimitsSettings
from modelyard.limits.breaker import Breaker
from modelyard.limits.ports import RemoteCounter

DYNAMODB, IAM = "dynamodb://", "iam://"


def open_counter(settings: LimitsSettings) -> RemoteCounter | None:
    """The counter of `limits.url`, not connected yet; None where each host counts by itself. By scheme: another kind
    of counter is another branch here. SettingsError("setting_invalid"), UnavailableError("limits_unavailable")."""
    url = settings.url
    if url is None:
        return None
    _check_login(url, settings)
    try:
        if url.startswith(DYNAMODB):
            return _in_dynamodb(url.removeprefix(DYNAMODB))
        return _in_valkey(url, settings)
    except ModuleNotFoundError as error:
        extra = "valkey" if error.name == "valkey" else "aws"
        raise SettingsError(
            "setting_invalid",
            f"The setting `limits.url` names a counter that the extra `{extra}` brings.",
            field="limits.url",
            expected=f"pip install 'modelyard[{extra}]'",
        ) from None


def _check_login(url: str, settings: LimitsSettings) -> None:
    """A login or an authority that nothing would ask for is somebody's mistake."""
    unused = "password" if url.startswith((IAM, DYNAMODB)) and settings.password is not None else None
    if url.startswith(DYNAMODB) and settings.tls_ca is not None:
        unused = "tls_ca"
    if unused is not None:
        kind = DYNAMODB if url.startswith(DYNAMODB) else IAM
        raise SettingsError(
            "setting_invalid",
            f"The setting `limits.{unused}` says nothing beside a `limits.url` that begins with {kind}: remove it, "
            "AWS's own settings are used there.",
            field=f"limits.{unused}",
            expected=f"no limits.{unused}, or a valkey://, redis:// or rediss:// URL",
        )


def _in_valkey(url: str, settings: LimitsSettings) -> RemoteCounter:
    from modelyard.storage.valkey.counter import ValkeyCounter
    from modelyard.storage.valkey.location import Location

    location = Location.parse(url)
    if url.startswith(IAM):
        from modelyard.storage.valkey.iam import TokenLogin

        return ValkeyCounter(location, TokenLogin(location, SystemClock()), settings.tls_ca)
    return ValkeyCounter(location, settings.password, settings.tls_ca)


def _in_dynamodb(table: str) -> RemoteCounter:
    """Region and endpoint as AWS's own settings name them."""
    from modelyard.storage.dynamodb.limits.counter import PATIENCE_S, DynamoCounter

    region = os.environ.get("AWS_REGION")
    return DynamoCounter(table, DatabaseSettings(region=region, busy_timeout_s=PATIENCE_S), SystemClock())


def probe(settings: LimitsSettings) -> None:
    """Returns if the counter of `limits.url` counts in time, or if there is none; outside of any loop.

    SettingsError("setting_invalid"), UnavailableError("limits_unavailable"): its `retry_after_s` is set where waiting
    may help, and None where the settings are wrong.
    """
    counter = open_counter(settings)
    if counter is not None:
        asyncio.run(_try_once(counter, settings))


async def _try_once(counter: RemoteCounter, settings: LimitsSettings) -> None:
    try:
        await Breaker(counter, settings.timeout_ms / 1e3, allow=False).try_once()
    except TimeoutError:
        raise UnavailableError(
            "limits_unavailable",
            "The counter that `limits.url` names does not answer in time: see to it, to the scheme in the URL (TLS or "
            "not), or raise limits.timeout_ms.",
            retry_after_s=1.0,
            field="limits.url",
            reason="too_slow",
        ) from None
    finally:
        await counter.close()
