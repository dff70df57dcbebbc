"""Signers of models as others have them: the tool of OpenSSF model signing itself, with keys and with certificates.

Everything is made here and now; a bundle that the tool would never make is one of the tool's, changed and signed again.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
DIGESTS = {"secp256r1": SHA256(), "secp384r1": SHA384(), "secp521r1": SHA512()}
KIND = b"application/vnd.in-toto+json"
SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)
Key = Any
Change = Callable[[dict[str, Any]], None]


def key(curve: str = "P-256") -> Key:
    """A fresh private key."""
    return ec.generate_private_key(CURVES[curve])


def private_pem(made: Key) -> bytes:
    """PKCS 8 without a passphrase."""
    return bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public_pem(made: Key) -> str:
    """For `models.trusted_signers`."""
    return str(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


class Certified:
    """A key with its certificate, and who issued it (None: itself). `more` are extensions, critical or not."""

    def __init__(
        self,
        issuer: Certified | None = None,
        name: str = "somebody",
        authority: bool = False,
        purposes: tuple[x509.ObjectIdentifier, ...] = SIGNING,
        signs: bool | None = True,
        begins_days: float = -1,
        ends_days: float = 30,
        path_length: int | None = None,
        issues: bool | None = None,
        more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        made: Key = None,
    ) -> None:
        self.key = made or key()
        self.issuer = issuer
        by = issuer or self
        now, named = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(named).public_key(self.key.public_key())
        builder = builder.issuer_name(named if issuer is None else issuer.certificate.subject)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + timedelta(days=begins_days))
        builder = builder.not_valid_after(now + timedelta(days=ends_days))
        builder = builder.add_extension(x509.BasicConstraints(authority, path_length), critical=True)
        if signs is not None:
            builder = builder.add_extension(_usage(signs, authority if issues is None else issues), critical=True)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        if purposes and not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        self.certificate = builder.sign(by.key, None if isinstance(by.key, ed25519.Ed25519PrivateKey) else SHA256())

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def chain(self) -> list[Certified]:
        """From the issuer up; itself, where there is none: the tool wants at least one."""
        above, found = self.issuer, list[Certified]()
        while above is not None:
            found.append(above)
            above = above.issuer
        return found or [self]


def _usage(signs: bool, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs and not issues, content_commitment=False, key_encipherment=not signs,
        data_encipherment=False, key_agreement=False, key_cert_sign=issues, crl_sign=issues,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def authority(name: str = "root", **more: Any) -> Certified:
    """One that issues certificates, signed by itself."""
    return Certified(name=name, authority=True, **more)


def sign(source: Path, by: Key | Certified, place: Path | None = None) -> Path:
    """Signs a folder or file with the tool; the bundle's path, `model.sig` in the folder unless another is given."""
    import model_signing

    place = place or source / "model.sig"
    place.unlink(missing_ok=True)
    how = model_signing.signing.Config()
    with tempfile.TemporaryDirectory() as made:
        private, own, *others = (Path(made) / name for name in ("key", "own", *map(str, range(len(_above(by))))))
        private.write_bytes(private_pem(_key_of(by)))
        if not isinstance(by, Certified):
            how.use_elliptic_key_signer(private_key=private).sign(source, place)
            return place
        for path, each in zip((own, *others), (by, *by.chain), strict=True):
            path.write_text(each.pem)
        how.use_certificate_signer(private_key=private, signing_certificate=own, certificate_chain=others)
        how.sign(source, place)
    return place


def _above(by: Key | Certified) -> list[Certified]:
    return by.chain if isinstance(by, Certified) else []


def _key_of(by: Key | Certified) -> Key:
    return by.key if isinstance(by, Certified) else by


def changed(bundle: bytes, change: Change) -> bytes:
    """The bundle with another outside; its signature stays as it is."""
    found = json.loads(bundle)
    change(found)
    return json.dumps(found).encode()


def resigned(bundle: bytes, by: Key | Certified, change: Change | bytes) -> bytes:
    """The bundle with another statement inside (changed, or these bytes), signed anew by the key."""
    found = json.loads(bundle)
    envelope = found["dsseEnvelope"]
    payload = change if isinstance(change, bytes) else changed(base64.b64decode(envelope["payload"]), change)
    message = b"DSSEv1 %d %s %d %s" % (len(KIND), KIND, len(payload), payload)
    signer = _key_of(by)
    if isinstance(signer, ed25519.Ed25519PrivateKey):
        made = signer.sign(message)
    else:
        made = signer.sign(message, ec.ECDSA(DIGESTS[signer.curve.name]))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"] = [{"sig": base64.b64encode(made).decode(), "keyid": ""}]
    return json.dumps(found).encode()
