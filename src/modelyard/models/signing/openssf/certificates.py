"""Certificates of signers (RFC 5280): one that is trusted itself, or a chain that ends in one that is.

The chain is walked by `cryptography`; what a certificate may be used for is asked here, as the specification's own tool
asks it, and stricter in one point: a certificate that lists purposes must list code signing among them. Otherwise every
TLS certificate of a company's own authority could sign models.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.models.signing.openssf.coverage import invalid
from modelyard.models.signing.trusted import checked_key, id_of

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from modelyard.models.signing.trusted import PublicKey

MAX_CERTIFICATES = 8
MAX_CERTIFICATE_BYTES = 16 * 1024


class Chain(msgspec.Struct, frozen=True):
    """The signer's certificate, then those that lead from it to an authority."""

    leaf: Certificate
    others: tuple[Certificate, ...]


def read_chain(raw: Sequence[bytes]) -> Chain:
    """Certificates in DER; PublishError("signature_invalid")."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import load_der_x509_certificate

    if not 1 <= len(raw) <= MAX_CERTIFICATES or max(map(len, raw)) > MAX_CERTIFICATE_BYTES:
        most = f"at most {MAX_CERTIFICATE_BYTES} bytes each"
        raise invalid(f"it must hold 1 to {MAX_CERTIFICATES} certificates of {most}.", got=len(raw))
    try:
        leaf, *others = map(load_der_x509_certificate, raw)
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("a certificate in it cannot be read.") from None
    return Chain(leaf, tuple(others))


def key_of(chain: Chain) -> PublicKey:
    """The signer's public key; PublishError("signature_invalid") for one of another kind."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return checked_key(chain.leaf.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise invalid("its certificate holds no key of Ed25519 or of the curves P-256, P-384, P-521.") from None


def authority(chain: Chain, trusted: Sequence[Certificate], at: float | None) -> str | None:
    """Id of the trusted certificate's key that stands for this chain; None: no trusted one does.

    PublishError("signature_invalid") for a certificate that may not sign, or not `at` this moment (UNIX seconds). At a
    load there is no moment (None): that a certificate ran out takes no version out of service.
    """
    _check_usage(chain.leaf)
    begins, ends = chain.leaf.not_valid_before_utc, chain.leaf.not_valid_after_utc
    moment = begins if at is None else datetime.fromtimestamp(at, UTC)
    if not begins <= moment <= ends:
        raise invalid("its certificate is not valid today.", expected=[begins.isoformat(), ends.isoformat()])
    return _walked(chain, trusted, moment) if trusted else None


def _walked(chain: Chain, trusted: Sequence[Certificate], moment: datetime) -> str | None:
    from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

    policy = PolicyBuilder().store(Store(list(trusted))).time(moment).max_chain_depth(MAX_CERTIFICATES)
    policy = policy.extension_policies(ca_policy=_of_authorities(), ee_policy=ExtensionPolicy.permit_all())
    try:
        found = policy.build_client_verifier().verify(chain.leaf, list(chain.others)).chain
    except VerificationError:
        return None
    return id_of(found[-1].public_key())


def _of_authorities() -> Any:
    """What an authority's certificate must say of itself; the profile of the web asks for more than own ones have."""
    from cryptography.x509 import BasicConstraints, KeyUsage
    from cryptography.x509.verification import Criticality, ExtensionPolicy

    def is_authority(policy: Any, certificate: Any, extension: Any) -> None:
        if not extension.ca:
            raise ValueError("no authority")

    def may_issue(policy: Any, certificate: Any, extension: Any) -> None:
        if extension is not None and not extension.key_cert_sign:
            raise ValueError("may not issue")

    anything = ExtensionPolicy.permit_all()
    asked = anything.require_present(BasicConstraints, Criticality.AGNOSTIC, is_authority)
    return asked.may_be_present(KeyUsage, Criticality.AGNOSTIC, may_issue)


def _check_usage(leaf: Certificate) -> None:
    from cryptography.x509 import ExtendedKeyUsage, KeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        purposes, usage = _extension(leaf, ExtendedKeyUsage), _extension(leaf, KeyUsage)
    except ValueError:
        raise invalid("its certificate cannot be read.") from None
    signs = ExtendedKeyUsageOID.CODE_SIGNING in purposes if purposes is not None else usage is not None
    if not signs or (usage is not None and not usage.digital_signature):
        raise invalid(
            "its certificate may not be used to sign.",
            expected="the key usage digitalSignature, and codeSigning among its purposes, where it lists some",
        )


def _extension(leaf: Certificate, kind: Any) -> Any:
    from cryptography.x509 import DuplicateExtension, ExtensionNotFound

    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except ExtensionNotFound:
        return None
    except DuplicateExtension:
        raise ValueError("an extension twice") from None
