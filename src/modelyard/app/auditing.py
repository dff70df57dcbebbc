"""What the processes themselves write into the audit log: starts, stops, other settings, refused requests."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import modelyard
from modelyard.audit.event import Change, changed_only, recorded
from modelyard.audit.ports import AuditFilter, AuditLog
from modelyard.audit.refused import FLUSH_INTERVAL_S
from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import ModelyardError
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.http.services import Services
from modelyard.storage.sql.open import open_stores
from modelyard.telemetry.logs import emit


def server_started(settings: Settings, url: str) -> None:
    """Writes down the start, and what differs from the settings of the start before."""
    stores = open_stores(settings, settings.data)
    try:
        stores.audit.append(*start_changes(stores.audit, settings, url))
    finally:
        stores.close()


def server_stopped(settings: Settings, url: str) -> None:
    """Writes down an orderly end; one that cannot be written ends all the same."""
    try:
        stores = open_stores(settings, settings.data)
        try:
            stores.audit.append(Change(AuditAction.SERVER_STOP, _server(), _running(url)))
        finally:
            stores.close()
    except ModelyardError as error:
        _say_failed(error)


def version_unhealthy(settings: Settings, model: str, version: str, deaths: int) -> None:
    """Writes down that a version was taken out; it is out all the same if that cannot be written."""
    try:
        stores = open_stores(settings, settings.data)
        try:
            stores.audit.append(
                Change(AuditAction.VERSION_UNHEALTHY, f"version:{model}/{version}", None, {"deaths": deaths})
            )
        finally:
            stores.close()
    except ModelyardError as error:
        _say_failed(error)


def start_changes(audit: AuditLog, settings: Settings, url: str) -> tuple[Change, ...]:
    """The start, with all settings but the credentials, and the change of settings, if any."""
    now = recorded(flat(settings.model_dump(mode="json", exclude={"auth"})))
    started = Change(AuditAction.SERVER_START, _server(), None, _running(url) | {"settings": now})
    last = audit.page(AuditFilter(action=AuditAction.SERVER_START), 1, None).events
    before = last[0].after.get("settings") if last else None
    if not isinstance(before, dict) or before == now:
        return (started,)
    return started, Change(AuditAction.SETTINGS_CHANGE, _server(), *changed_only(before, now))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"http": {"port": 1}}` as `{"http.port": 1}`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


async def follow_refusals(services: Services, executor: Executor) -> None:
    """Writes down the refused requests of every minute, for ever."""
    while True:
        await asyncio.sleep(FLUSH_INTERVAL_S)
        await asyncio.get_running_loop().run_in_executor(executor, flush_refusals, services)


def flush_refusals(services: Services) -> None:
    """Writes down what was refused since the last time; what the database does not take is kept for the next."""
    try:
        services.refused.flush(services.audit.append)
    except ModelyardError as error:
        _say_failed(error)


def _server() -> str:
    return f"server:{socket.gethostname()}"


def _running(url: str) -> dict[str, Any]:
    return {"program": modelyard.__version__, "process": os.getpid(), "url": url}


def _say_failed(error: ModelyardError) -> None:
    emit(Event.AUDIT_FAILED, "error", code=error.code, reason=error.message)
