"""Certificates: what one says of itself, and the self-signed one that a server makes for itself."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

VALID_DAYS = 90
RENEW_BEFORE_DAYS = 30
"""A self-signed certificate is made anew when it has less left than this."""
CLOCK_SKEW = timedelta(hours=1)
"""It is valid from a little before now: a client's clock may be behind."""
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104  # read, not bound


@dataclass(frozen=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Certificate:
    """What the first certificate of a file says. `fingerprint` is SHA-256 of its DER form, in hex."""

    subject: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str

    def days_left(self, now: datetime) -> float:
        """Until it expires; negative once it has."""
        return (self.not_after - now).total_seconds() / 86_400


def read_certificate(path: Path) -> Certificate:
    """The first certificate of a PEM file; SettingsError("tls_file_unreadable")."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())[0]
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        texts = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
    except x509.ExtensionNotFound:
        texts = ()
    except OSError as error:
        raise unreadable("certificate", path, error.strerror or "it cannot be read") from None
    except ValueError:
        raise unreadable("certificate", path, "it holds no certificate in PEM form") from None
    digest = hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
    return Certificate(
        found.subject.rfc4514_string(), texts, found.not_valid_before_utc, found.not_valid_after_utc, digest
    )


def unreadable(what: str, path: Path, why: str) -> SettingsError:
    """SettingsError("tls_file_unreadable") for the certificate or the key."""
    field = "http.tls_cert" if what == "certificate" else "http.tls_key"
    return SettingsError(
        "tls_file_unreadable",
        f"The TLS {what} `{path}` cannot be used: {why}.",
        field=field,
        expected=f"a {'certificate chain' if what == 'certificate' else 'private key without a passphrase'}, PEM",
        got=str(path),
    )


def own_names(host: str) -> tuple[str, ...]:
    """The names of a self-signed certificate: this machine's, the loopback's, and the address that is listened on."""
    names = dict.fromkeys(("localhost", socket.gethostname(), "127.0.0.1", "::1"))
    if host not in EVERYWHERE:
        names[host] = None
    return tuple(name for name in names if name)


def is_current(files: TlsFiles, names: tuple[str, ...], now: datetime) -> bool:
    """Whether a self-signed certificate is there, for these names, with time left."""
    try:
        found = read_certificate(files.certificate)
    except SettingsError:
        return False
    return files.key.is_file() and set(names) <= set(found.names) and found.days_left(now) > RENEW_BEFORE_DAYS


def make_self_signed(files: TlsFiles, names: tuple[str, ...], now: datetime) -> None:
    """Writes a certificate for `names` and its key (ECDSA on P-256), both private to the owner.

    Each file is replaced whole, the key first: who reads between the two finds that they differ, and reads again.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    # So that a client that trusts several certificates of this name finds the right one.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Modelyard, self-signed")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files.certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    _write(files.key, key.private_bytes(pem, form, serialization.NoEncryption()))
    _write(files.certificate, made.public_bytes(pem))


def _general_name(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)


def utc_now() -> datetime:
    """The wall clock, for validity."""
    return datetime.now(UTC)
