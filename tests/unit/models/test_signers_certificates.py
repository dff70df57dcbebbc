"""Who may sign by certificate: chains made here, put on bundles by the tool itself, and held to RFC 5280."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

import modelsigners as made
from modelyard.core.clock import SystemClock
from modelyard.core.errors import PublishError, SettingsError
from modelyard.models.signing.trust import Trust
from modelyard.models.signing.trusted import MAX_SOURCE_BYTES, id_of, trusted_ids, trusted_signers
from modelyard.models.stage import hash_folder

KEY = made.key()
ROOT = made.authority(begins_days=-20)
MIDDLE = made.Certified(ROOT, "middle", authority=True, begins_days=-20)
BUNDLE, MATERIAL = "model.sig", "verificationMaterial"
NOW = SystemClock().now()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two files, unsigned."""
    place = tmp_path / "m"
    place.mkdir()
    (place / "m.onnx").write_bytes(b"weights")
    (place / "modelyard.json").write_text("{}")
    return place


def _examine(folder: Path, *trusted: str) -> Any:
    return Trust(trusted_signers(trusted), True).examine_folder(folder, hash_folder(folder, 10**9), NOW)


def _refusal(folder: Path, *trusted: str, code: str = "signature_invalid") -> PublishError:
    with pytest.raises(PublishError) as refused:
        _examine(folder, *trusted)
    assert refused.value.code == code, refused.value.message
    return refused.value


def _authority_with(*more: tuple[x509.ExtensionType, bool], **asked: Any) -> made.Certified:
    return made.authority("other", more=more, **asked)


def _called(name: str) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.DNSName(name)]), False


UNHEARD = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)
NARROW = _authority_with((x509.NameConstraints([x509.DNSName("good.example")], None), True))
STRANGE = _authority_with(UNHEARD)
SILENT = made.authority("silent", issues=False)
NONE = made.Certified(None, "none", issues=True)
PLAIN = made.Certified(ROOT, "plain")
TIGHT = made.authority("tight", path_length=0)
CERTIFICATES: dict[str, tuple[made.Certified, made.Certified, str]] = {
    "another authority's": (made.Certified(made.authority("root")), ROOT, "signer_unknown"),
    "below one that is none": (made.Certified(PLAIN, "below"), ROOT, "signer_unknown"),
    "below too many": (made.Certified(made.Certified(TIGHT, "in between", authority=True)), TIGHT, "signer_unknown"),
    "below one that ran out": (
        made.Certified(made.Certified(ROOT, "old", authority=True, begins_days=-9, ends_days=-5)), ROOT,
        "signer_unknown",
    ),
    "of an authority that may not issue": (made.Certified(SILENT), SILENT, "signer_unknown"),
    "of one that may issue and is no authority": (made.Certified(NONE), NONE, "signer_unknown"),
    "under a condition that nobody knows": (made.Certified(ROOT, more=(UNHEARD,)), ROOT, "signer_unknown"),
    "of one with such a condition": (made.Certified(STRANGE), STRANGE, "signer_unknown"),
    "of a name outside": (made.Certified(NARROW, more=(_called("evil.example"),)), NARROW, "signer_unknown"),
    "itself, of nobody": (made.Certified(), ROOT, "signer_unknown"),
    "run out": (made.Certified(ROOT, begins_days=-9, ends_days=-1), ROOT, "signature_invalid"),
    "not yet": (made.Certified(ROOT, begins_days=1), ROOT, "signature_invalid"),
    "for TLS": (made.Certified(ROOT, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), ROOT, "signature_invalid"),
    "not for signatures": (made.Certified(ROOT, signs=False), ROOT, "signature_invalid"),
    "for nothing": (made.Certified(ROOT, purposes=(), signs=None), ROOT, "signature_invalid"),
}  # fmt: skip


@pytest.mark.parametrize("which", CERTIFICATES)
def test_certificates_that_do_not_stand_for_a_model(which: str, folder: Path) -> None:
    """Of another authority of the same name, by an issuer that may not issue, out of time, for another purpose."""
    by, trusted, code = CERTIFICATES[which]
    made.sign(folder, by)
    _refusal(folder, trusted.pem, code=code)


def test_a_name_inside_the_authority_s_bounds(folder: Path) -> None:
    """What refuses the name outside is the name."""
    made.sign(folder, made.Certified(NARROW, more=(_called("a.good.example"),)))
    assert _examine(folder, NARROW.pem).trusted


def test_a_certificate_of_ed25519_that_is_trusted_itself(folder: Path) -> None:
    """Chains have none, says the verifier's profile; one that is listed stands for itself."""
    by = made.Certified(made=Ed25519PrivateKey.from_private_bytes(bytes(32)))
    bundle = made.resigned(made.sign(folder, made.Certified()).read_bytes(), by, lambda statement: None)
    to = [{"rawBytes": base64.b64encode(by.certificate.public_bytes(Encoding.DER)).decode()}]
    (folder / BUNDLE).write_bytes(made.changed(bundle, _chain(to)))
    assert _examine(folder, by.pem).authority == id_of(by.key.public_key())
    _refusal(folder, ROOT.pem, code="signer_unknown")


def test_a_certificate_that_is_trusted_alone(folder: Path) -> None:
    """It stands for itself, though nobody here knows its issuer; another of the same issuer is nobody's."""
    by = made.Certified(ROOT)
    made.sign(folder, by)
    assert _examine(folder, by.pem).authority == id_of(by.key.public_key())
    made.sign(folder, made.Certified(ROOT))
    _refusal(folder, by.pem, code="signer_unknown")


def test_a_certificate_may_list_no_purposes(folder: Path) -> None:
    """The key usage alone is enough, as for the tool; code signing alone is, too."""
    for by in (made.Certified(ROOT, purposes=()), made.Certified(ROOT, signs=None)):
        made.sign(folder, by)
        assert _examine(folder, ROOT.pem).authority == id_of(ROOT.key.public_key())


def _chain(to: Any) -> made.Change:
    def change(found: dict[str, Any]) -> None:
        found[MATERIAL]["x509CertificateChain"] = {"certificates": to}

    return change


CHAINS = {
    "empty": ([], "must hold 1 to 8"),
    "nine": (["AAAA"] * 9, "must hold 1 to 8"),
    "large": (["A" * 40_000], "must hold 1 to 8"),
    "no certificate": (["AAAA"], "cannot be read"),
}


@pytest.mark.parametrize("which", CHAINS)
def test_chains_that_are_none(which: str, folder: Path) -> None:
    """Empty, no certificates, too many, too large: signature_invalid and why."""
    raw, expected = CHAINS[which]
    bundle = made.sign(folder, made.Certified(ROOT)).read_bytes()
    (folder / BUNDLE).write_bytes(made.changed(bundle, _chain([{"rawBytes": each} for each in raw])))
    assert expected in _refusal(folder, ROOT.pem).message


def test_a_key_of_another_kind_in_a_certificate(folder: Path) -> None:
    """RSA, though the certificate is trusted itself: signature_invalid."""
    by = made.Certified(made=rsa.generate_private_key(65537, 2048))
    bundle = made.sign(folder, made.Certified()).read_bytes()
    to = [{"rawBytes": base64.b64encode(by.certificate.public_bytes(Encoding.DER)).decode()}]
    (folder / BUNDLE).write_bytes(made.changed(bundle, _chain(to)))
    assert "P-256, P-384, P-521" in _refusal(folder, by.pem).message


def test_anothers_certificate_on_a_bundle(folder: Path) -> None:
    """A trusted certificate that was put over another's signature: signature_invalid."""
    theirs = made.sign(folder, made.Certified()).read_bytes()
    ours = json.loads(made.sign(folder, made.Certified(ROOT)).read_bytes())[MATERIAL]
    (folder / BUNDLE).write_bytes(made.changed(theirs, lambda found: found.update({MATERIAL: ours})))
    assert "key of its certificate" in _refusal(folder, ROOT.pem).message


def test_trusted_signers_are_keys_and_certificates(tmp_path: Path) -> None:
    """Texts or files; several certificates in one; ids are of the keys."""
    both = ROOT.pem + MIDDLE.pem
    (tmp_path / "both.pem").write_text(both)
    expected = {id_of(each.key.public_key()) for each in (ROOT, MIDDLE)}
    assert trusted_ids((both,)) == trusted_ids((str(tmp_path / "both.pem"),)) == expected
    assert trusted_ids((made.public_pem(KEY), ROOT.pem)) == {id_of(KEY.public_key()), id_of(ROOT.key.public_key())}


def _rsa() -> str:
    return made.public_pem(rsa.generate_private_key(65537, 2048))


@pytest.mark.parametrize(
    "given",
    [
        _rsa(),
        made.public_pem(generate_private_key(SECP256K1())),
        ROOT.pem[:-100],
        ROOT.pem.replace("A", "B"),
        made.public_pem(KEY) + made.public_pem(ROOT.key),
        ROOT.pem + made.public_pem(KEY),
        ROOT.pem + made.private_pem(ROOT.key).decode(),
        made.private_pem(KEY).decode(),
        ROOT.pem * (MAX_SOURCE_BYTES // len(ROOT.pem) + 1),
    ],
    ids=["RSA", "another curve", "cut off", "changed", "two keys", "and a key", "and its key", "private", "large"],
)
def test_what_cannot_sign_is_not_trusted(given: str) -> None:
    """RSA, a curve of coins, what cannot be read, and what would be passed over in silence: setting_invalid, and no
    text of theirs is shown."""
    with pytest.raises(SettingsError) as refused:
        trusted_signers((given,))
    assert (refused.value.code, refused.value.detail["got"]) == ("setting_invalid", "a PEM text")
