"""TLS of the server: 1.2 or newer, files checked before they are used, exchanged without dropping a connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from modelyard.core.errors import SettingsError
from modelyard.core.events import Event
from modelyard.core.settings import HttpSettings
from modelyard.http.edge.certificate import (
    Certificate,
    TlsFiles,
    is_current,
    make_self_signed,
    own_names,
    read_certificate,
    unreadable,
    utc_now,
)

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()

SHUTDOWN_TIMEOUT_S = 5.0
"""How long a closing connection waits for the other side's farewell."""
MISMATCHES = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"})


def tls_files(settings: HttpSettings, folder: Path) -> TlsFiles | None:
    """The files that the settings name, those of the data folder for a self-signed certificate, None without TLS."""
    if settings.tls_cert is not None and settings.tls_key is not None:
        return TlsFiles(settings.tls_cert, settings.tls_key)
    if settings.tls == "self-signed":
        return TlsFiles(folder / "tls" / "certificate.pem", folder / "tls" / "key.pem")
    return None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for TLS 1.2 and 1.3, HTTP/1.1 alone.

    SettingsError("tls_file_unreadable" | "tls_key_mismatch").
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for what, path in (("certificate", files.certificate), ("key", files.key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise unreadable(what, path, error.strerror or "it cannot be read") from None
    try:
        # The empty passphrase: without one the library would ask for it at the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError) as error:
        raise _refusal(files, error) from None
    return context


def _refusal(files: TlsFiles, error: OSError) -> SettingsError:
    if getattr(error, "reason", None) in MISMATCHES:
        return SettingsError(
            "tls_key_mismatch",
            f"The TLS key `{files.key}` is not the one of the certificate `{files.certificate}`.",
            field="http.tls_key",
            expected="the private key that the certificate was made for",
            got=str(files.key),
        )
    read_certificate(files.certificate)  # if that fails, it says so
    return unreadable("key", files.key, "it holds no private key in PEM form, or one with a passphrase")


def check_files(files: TlsFiles, now: datetime) -> Certificate:
    """The certificate, if clients could take it; SettingsError("tls_certificate_expired") beside those above."""
    server_context(files)
    found = read_certificate(files.certificate)
    if found.days_left(now) <= 0:
        raise SettingsError(
            "tls_certificate_expired",
            f"The TLS certificate `{files.certificate}` expired on {found.not_after:%Y-%m-%d}.",
            field="http.tls_cert",
            expected="a certificate that is valid today",
            got=found.not_after.isoformat(),
        )
    return found


def over_tls(protocol: type[HttpToolsProtocol]) -> type[HttpToolsProtocol]:
    """The protocol class for connections over TLS: there a farewell ends both directions, and asyncio logs a line for
    each protocol that asks to stay open (half-closed connections are for plain TCP)."""

    class OverTls(protocol):  # type: ignore[misc, valid-type]
        def eof_received(self) -> None:
            super().eof_received()

    return OverTls


class TlsContext:
    """A worker's context. Connections that are open keep their certificate; `reload` changes that of the next ones."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._current = self.context = server_context(files)
        # OpenSSL asks here in every handshake, also without a name; the context for it may be changed then.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def reload(self) -> None:
        """Reads the files again; what they hold is not used unless it can be."""
        try:
            self._current = server_context(self._files)
        except SettingsError as error:
            log.error(Event.TLS_REFUSED, code=error.code, reason=error.message)


class TlsKeeper:
    """The parent's side: sees that there is a good certificate at the start, on SIGHUP, and before it expires."""

    def __init__(self, settings: HttpSettings, folder: Path, now: Callable[[], datetime] = utc_now) -> None:
        self.files = tls_files(settings, folder)
        self.certificate: Certificate | None = None
        self._names = own_names(settings.host) if settings.tls == "self-signed" and settings.tls_cert is None else ()
        self._now = now

    @property
    def made(self) -> Path | None:
        """The self-signed certificate; None where there is none."""
        return self.files.certificate if self.files is not None and self._names else None

    def start(self) -> Certificate | None:
        """Makes the self-signed one if need be, and checks; None without TLS. SettingsError."""
        if self.files is None:
            return None
        if self._names and not is_current(self.files, self._names, self._now()):
            make_self_signed(self.files, self._names, self._now())
        self.certificate = check_files(self.files, self._now())
        return self.certificate

    def refresh(self, asked: bool) -> bool:
        """Whether workers should read the files again: when `asked` (SIGHUP) and they are good, or when a self-signed
        certificate was due. Bad files are said in the log, and what is served stays."""
        if self.files is None or (not asked and not self._is_due()):
            return False
        try:
            found = self.start()
        except (SettingsError, OSError) as error:
            log.error(Event.TLS_REFUSED, code=getattr(error, "code", ""), reason=str(error))
            return False
        assert found is not None
        log.info(Event.TLS_RELOADED, fingerprint=found.fingerprint, not_after=found.not_after.isoformat())
        return True

    def _is_due(self) -> bool:
        assert self.files is not None
        return bool(self._names) and not is_current(self.files, self._names, self._now())
