"""The keys and certificates of `models.trusted_signers`: texts, lines, or files of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from modelyard.core.errors import SettingsError
from modelyard.models.signing.keys import LINE, read_public

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate

    PublicKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey

BEGINNING = "-----BEGIN"
CERTIFICATE = "-----BEGIN CERTIFICATE-----"
MAX_SOURCE_BYTES = 64 * 1024
CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""P-256, P-384 and P-521, as cryptography calls them: those that OpenSSF model signing has."""


class TrustedSigners(msgspec.Struct, frozen=True):
    """Who may sign. `ids` are of all keys, those of certificates too; `keys` are the bare ones, by the hint that a
    bundle has of one: SHA-256 (hex) of its PEM text. A certificate stands for itself and for those it issued."""

    ids: frozenset[str] = frozenset()
    keys: Mapping[str, PublicKey] = {}
    certificates: tuple[Certificate, ...] = ()


@lru_cache(maxsize=8)
def trusted_signers(sources: tuple[str, ...]) -> TrustedSigners:
    """Public keys and certificates that are given as PEM, as one line (`ed25519:…`), or by a file that holds either;
    SettingsError("setting_invalid")."""
    found = TrustedSigners()
    for source in sources:
        try:
            more = read_signers(_text(source))
        except ValueError as error:
            raise _unusable(source, str(error)) from None
        found = TrustedSigners(
            found.ids | more.ids, {**found.keys, **more.keys}, found.certificates + more.certificates
        )
    return found


def trusted_ids(sources: tuple[str, ...]) -> frozenset[str]:
    """The ids alone."""
    return trusted_signers(sources).ids


def read_signers(text: str) -> TrustedSigners:
    """One public key, or the certificates of a PEM text; ValueError says in words what it is instead. Nothing in it is
    passed over: a second key, or a private one that has no place on a server, is an error of its owner's."""
    if len(text) > MAX_SOURCE_BYTES:
        raise ValueError(f"it is larger than {MAX_SOURCE_BYTES} bytes")
    others = text.count(BEGINNING) - text.count(CERTIFICATE)
    if others > (CERTIFICATE not in text):
        raise ValueError("it holds more than one key, or a key beside certificates")
    if CERTIFICATE in text:
        certificates = _certificates(text)
        return TrustedSigners(frozenset(id_of(each.public_key()) for each in certificates), {}, certificates)
    key = read_key(text)
    return TrustedSigners(frozenset({id_of(key)}), {_hint(key): key})


def read_key(text: str) -> PublicKey:
    """A public key of a kind that may sign, from PEM or one line; ValueError says in words what it is instead."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if text.startswith(LINE):
        return Ed25519PublicKey.from_public_bytes(read_public(text))
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it holds no public key in PEM form") from None
    return checked_key(key)


def checked_key(key: object) -> PublicKey:
    """The key, if it is of Ed25519 or of a curve of CURVES; ValueError."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(key, Ed25519PublicKey) or (isinstance(key, EllipticCurvePublicKey) and key.curve.name in CURVES):
        return key
    raise ValueError("its key is neither of Ed25519 nor of the curves P-256, P-384 and P-521")


def id_of(key: PublicKeyTypes) -> str:
    """SHA-256 (hex) of a public key's DER form, of whatever kind it is: `keys.key_id` is that of Ed25519."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _hint(key: PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _certificates(text: str) -> tuple[Certificate, ...]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = tuple(load_pem_x509_certificates(text.encode()))
        for each in found:
            id_of(each.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a certificate in it cannot be read") from None
    return found


def _text(source: str) -> str:
    given = source.strip()
    if given.startswith((LINE, BEGINNING)):
        return given
    try:
        with Path(given).open("rb") as file:
            return file.read(MAX_SOURCE_BYTES + 1).decode().strip()
    except OSError as error:
        raise _unusable(source, (error.strerror or "it cannot be read").lower()) from None
    except UnicodeDecodeError:
        raise _unusable(source, "it is no text") from None
    except ValueError as error:
        raise _unusable(source, str(error)) from None


def _unusable(source: str, why: str) -> SettingsError:
    given = source.strip()
    shown = given[:200] if not given.startswith(BEGINNING) else "a PEM text"
    return SettingsError(
        "setting_invalid",
        f"models.trusted_signers names `{shown}`, which is no public key or certificate: {why}.",
        field="models.trusted_signers",
        expected="a file with a public key or certificates in PEM, its text, or ed25519:BASE64",
        got=shown,
    )
