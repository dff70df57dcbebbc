"""A Sigstore bundle (version 0.3) with a DSSE envelope around a statement about files, signed by a key of one's own.

Bundles of Sigstore's keyless method are refused in a sentence: whom they name is known to its public services alone.
What is here is known without a connection: keys and certificates of `models.trusted_signers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.core.errors import PublishError
from modelyard.models.manifest import FileEntry
from modelyard.models.signing.openssf.certificates import authority, key_of, read_chain
from modelyard.models.signing.openssf.coverage import check_coverage, invalid, read
from modelyard.models.signing.trusted import TrustedSigners, id_of
from modelyard.models.stage import MAX_FILES

if TYPE_CHECKING:
    from modelyard.models.signing.trusted import PublicKey

MAX_BUNDLE_BYTES = 8 * 1024 * 1024
"""Ten thousand files with long names fit."""
MAX_NESTED = 4 * MAX_FILES
"""Objects and lists, of which each file is one; millions of empty ones would take thirty times their bytes."""
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BY_KEY, BY_CERTIFICATE = "openssf-key", "openssf-certificate"
"""How a bundle was signed, as a version's `signing` says it."""


class KeyHint(msgspec.Struct, frozen=True):
    """Which key it was: SHA-256 (hex) of its PEM text."""

    hint: str | None = None


class RawCertificate(msgspec.Struct, frozen=True, rename="camel"):
    """DER."""

    raw_bytes: bytes


class RawChain(msgspec.Struct, frozen=True):
    """The signer's first."""

    certificates: tuple[RawCertificate, ...]


class Material(msgspec.Struct, frozen=True, rename="camel"):
    """What the signature is checked with. `certificate` and `tlog_entries` are of the keyless method."""

    public_key: KeyHint | None = None
    x509_certificate_chain: RawChain | None = None
    certificate: Any = None
    tlog_entries: tuple[Any, ...] | None = ()


class OneSignature(msgspec.Struct, frozen=True):
    """Over the envelope's type and payload."""

    sig: bytes


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """DSSE (https://github.com/secure-systems-lab/dsse, protocol 1.0)."""

    payload: bytes
    payload_type: str
    signatures: tuple[OneSignature, ...]

    def encoded(self) -> bytes:
        """What is signed."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


class Bundle(msgspec.Struct, frozen=True, rename="camel"):
    """`model.sig`."""

    media_type: str
    verification_material: Material
    dsse_envelope: Envelope


class Vouched(msgspec.Struct, frozen=True):
    """Who signed, and how. `authority` is the key id of the trusted certificate behind a signer's; `trusted` whether
    anybody trusted stands for it. Of a key that is not trusted its hint is all that is known."""

    signer: str
    method: str
    trusted: bool
    authority: str | None = None


def is_bundle(content: bytes) -> bool:
    """Whether this means to be a bundle, and no `modelyard.sig`."""
    return b'"mediaType"' in content


def examine_bundle(content: bytes, files: Iterable[FileEntry], trusted: TrustedSigners, at: float | None) -> Vouched:
    """Who signed these files by this bundle; PublishError("signature_invalid").

    `at`: the moment, UNIX seconds, at which certificates must be valid; None at a load. A bundle of a key that is not
    trusted cannot be checked, only its list of files can: the answer says so.
    """
    bundle = _read(content)
    check_coverage(_json(bundle.dsse_envelope.payload), files)
    material = bundle.verification_material
    if material.x509_certificate_chain is not None:
        return _by_certificate(bundle, material.x509_certificate_chain, trusted, at)
    return _by_key(bundle, material.public_key or KeyHint(), trusted)


def _by_key(bundle: Bundle, named: KeyHint, trusted: TrustedSigners) -> Vouched:
    hint = named.hint
    if hint:
        if hint not in trusted.keys:
            return Vouched(ascii(hint)[1:-1][:64], BY_KEY, False)
        if not _made_by(trusted.keys[hint], bundle.dsse_envelope):
            raise invalid("it was not made by the key that it names.", got=id_of(trusted.keys[hint]))
        return Vouched(id_of(trusted.keys[hint]), BY_KEY, True)
    maker = next((key for key in trusted.keys.values() if _made_by(key, bundle.dsse_envelope)), None)
    return Vouched("a key without a name", BY_KEY, False) if maker is None else Vouched(id_of(maker), BY_KEY, True)


def _by_certificate(bundle: Bundle, raw: RawChain, trusted: TrustedSigners, at: float | None) -> Vouched:
    chain = read_chain([each.raw_bytes for each in raw.certificates])
    key = key_of(chain)
    if not _made_by(key, bundle.dsse_envelope):
        raise invalid("it was not made by the key of its certificate.", got=id_of(key))
    behind = authority(chain, trusted.certificates, at)
    return Vouched(id_of(key), BY_CERTIFICATE, behind is not None, behind)


def _made_by(key: PublicKey, envelope: Envelope) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

    signature = envelope.signatures[0].sig
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            # The hash that Sigstore's specification has for each of the three curves.
            digests: dict[int, HashAlgorithm] = {256: SHA256(), 384: SHA384(), 521: SHA512()}
            key.verify(signature, envelope.encoded(), ec.ECDSA(digests[key.key_size]))
        else:
            key.verify(signature, envelope.encoded())
    except InvalidSignature:
        return False
    return True


def _read(content: bytes) -> Bundle:
    if len(content) > MAX_BUNDLE_BYTES:
        raise invalid(f"it is larger than {MAX_BUNDLE_BYTES} bytes.")
    found = _json(content)
    kind = found.get("mediaType") if isinstance(found, dict) else None
    if kind != MEDIA_TYPE:
        raise invalid("it is no Sigstore bundle of version 0.3.", expected=MEDIA_TYPE, got=ascii(kind)[:200])
    _check_method(found)
    bundle = read(found, Bundle)
    envelope = bundle.dsse_envelope
    if envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != 1:
        raise invalid("its envelope must hold one in-toto statement and one signature.", expected=PAYLOAD_TYPE)
    return bundle


def _check_method(found: Mapping[str, Any]) -> None:
    """PublishError unless it was signed with a key or a certificate of one's own."""
    material = read(found.get("verificationMaterial"), Material)
    if material.certificate is not None or material.tlog_entries:
        raise invalid(
            "it is of Sigstore's keyless method, whose public services are not asked from here.",
            expected="a bundle that `model_signing sign key` or `model_signing sign certificate` made",
        )
    if (material.public_key is None) == (material.x509_certificate_chain is None):
        raise invalid("it must name a key or hold certificates.")


def _json(content: bytes) -> Any:
    """JSON in which no name stands twice: others might read the other one."""
    if content.count(b"{") + content.count(b"[") > MAX_NESTED:
        raise invalid(f"it holds more than {MAX_NESTED} objects and lists.")
    try:
        return json.loads(content.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise invalid("it is damaged: no JSON, or a name twice in it.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def refused(vouched: Vouched) -> PublishError:
    """The bundle is of nobody who is trusted here."""
    whose = "certificate" if vouched.method == BY_CERTIFICATE else "key"
    return PublishError(
        "signer_unknown",
        f"The version's bundle is signed with a {whose} that is not trusted here: trust it, or leave the bundle out.",
        field="models.trusted_signers",
        expected="a bundle of one of models.trusted_signers",
        got=vouched.signer,
    )
