"""The settings, each with where it came from; the port; the certificate."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelyard.app.folder import DataFolder
from modelyard.app.server import listen
from modelyard.cli.doctor.findings import Finding, State, found, judged
from modelyard.cli.serve import flat, is_loopback
from modelyard.core.errors import SettingsError
from modelyard.core.settings import Settings
from modelyard.http.edge.certificate import RENEW_BEFORE_DAYS, utc_now
from modelyard.http.edge.tls import check_files, tls_files

AREA = "settings"
SOON_DAYS = 14


def origins(settings: Settings, config: Path | None, flags: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting's value comes from: `default`, the file, a variable's name, or `command line`."""
    file = dict(flat(tomllib.loads(config.read_text()))) if config is not None else {}
    said: dict[str, str] = {}
    for name, _ in flat(settings.model_dump(mode="json")):
        variable = f"MODELYARD_{name.replace('.', '__').upper()}"
        if flags.get(name) is not None:
            said[name] = "command line"
        elif any(variable == given.upper() for given in os.environ):
            said[name] = variable
        else:
            said[name] = str(config) if name in file else "default"
    return said


def listed(settings: Settings, where: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every setting with its value (secrets starred) and origin, for programs."""
    values = flat(settings.model_dump(mode="json"))
    return [{"name": name, "value": value, "origin": where[name]} for name, value in values]


def chosen(settings: Settings, where: Mapping[str, str]) -> Iterator[Finding]:
    """The settings that are not the defaults."""
    values = dict(flat(settings.model_dump(mode="json")))
    given = [name for name in values if where[name] != "default"]
    for name in given:
        yield found(AREA, name, f"{values[name]}  ({where[name]})")
    yield found(AREA, "others", f"{len(values) - len(given)} at their defaults")


def port(settings: Settings, folder: DataFolder) -> Iterator[Finding]:
    """Whether the address can be listened on; that it is taken by this folder's own server is fine."""
    host, number = settings.http.host, settings.http.port
    running = folder.running() if folder.path.is_dir() and folder.locked() else None
    if running is not None and str(running["url"]).endswith(f":{number}"):
        yield found(AREA, "port", f"{number} is this folder's own server's")
        return
    try:
        listen(settings).close()
    except SettingsError as error:
        yield Finding(AREA, "port", State.PROBLEM, error.message, "--port, or http.port and http.host.")
        return
    yield found(AREA, "port", f"{host}:{number} is free")


def tls(settings: Settings, folder: DataFolder) -> Iterator[Finding]:
    """The certificate, how long it is good for, and who may read its key."""
    files = tls_files(settings.http, folder.path)
    if files is None:
        said = f"off; {settings.http.host} is {'a loopback' if is_loopback(settings.http.host) else 'open to others'}"
        remedy = "--tls-cert and --tls-key, --tls self-signed, or a proxy with TLS before a loopback address."
        yield judged(AREA, "TLS", said, is_loopback(settings.http.host), remedy)
        return
    own = settings.http.tls_cert is None
    if own and not files.certificate.exists():
        yield found(AREA, "TLS", "self-signed; the start makes the certificate")
        return
    certificate = check_files(files, utc_now())
    days = certificate.days_left(utc_now())
    said = f"{', '.join(certificate.names) or certificate.subject}, {days:.0f} days left"
    remedy = "kill -HUP the server: it makes a new one." if own else "Renew it, then kill -HUP the server."
    yield judged(AREA, "TLS", said, days > (RENEW_BEFORE_DAYS - 1 if own else SOON_DAYS), remedy)
    mode = stat.S_IMODE(files.key.stat().st_mode)
    yield judged(AREA, "TLS key", f"{files.key}, mode {mode:04o}", not mode & 0o077, f"chmod 600 {files.key}")
