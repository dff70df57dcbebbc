"""Certificates for a PostgreSQL of the tests' own."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates; `pem` is its own, in a file of `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        now = datetime.datetime.now(datetime.UTC)
        made = self._signed(self._name, self._key, now - 30 * DAY, now + 30 * DAY, x509.BasicConstraints(True, None))
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str, *, expired: bool = False) -> tuple[bytes, bytes]:
        """A certificate for this name and its key, both PEM."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        until = now - DAY if expired else now + DAY
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        made = self._signed(_named(host), key, now - 2 * DAY, until, x509.BasicConstraints(False, None), names)
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        encoded = key.private_bytes(serialization.Encoding.PEM, form, plain)
        return made.public_bytes(serialization.Encoding.PEM), encoded

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        since: datetime.datetime,
        until: datetime.datetime,
        *extensions: x509.ExtensionType,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(since).not_valid_after(until)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
