"""Signatures: what they cover, whose count, and where they are asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from publish_yard import Yard  # type: ignore[import-not-found]

from modelyard.core.clock import SystemClock
from modelyard.core.errors import PublishError, SettingsError
from modelyard.core.settings import Settings, load_settings
from modelyard.core.types import Signature, TensorSpec
from modelyard.models.load import load_servable
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.ports import Version
from modelyard.models.signing import keys
from modelyard.models.signing.statement import SIGNATURE_FILE, SignatureFile, sign, signed_digest, signers
from modelyard.models.signing.trust import Trust
from modelyard.models.signing.trusted import trusted_ids
from modelyard.models.stage import hash_folder
from modelyard.storage.audit_row import version_facts
from modelyard.testing import StubRuntime, version_folder

OURS, THEIRS = (keys.key_from_seed(bytes([number]) * 32) for number in (1, 2))
OUR_LINE = keys.public_line(keys.public_bytes(OURS))
OUR_ID, THEIR_ID = (keys.key_id(keys.public_bytes(key)) for key in (OURS, THEIRS))
FILES = [FileEntry("a", "0" * 64, 1), FileEntry("modelyard.json", "1" * 64, 2)]


def _settings(folder: Path, **models: object) -> Settings:
    return load_settings(data=folder / "data", **{f"models.{name}": value for name, value in models.items()})


def _folder(place: Path, key: object = OURS) -> Path:
    """A model with its `modelyard.json`, signed, or not (None)."""
    place.mkdir()
    (place / "m.onnx").write_bytes(b"weights")
    (place / "modelyard.json").write_text(json.dumps({"redaction": ["x"]}))
    if key is not None:
        (place / SIGNATURE_FILE).write_bytes(sign(hash_folder(place, 10_000), key))  # type: ignore[arg-type]
    return place


def _refused(yard: Yard, source: Path) -> PublishError:
    with pytest.raises(PublishError) as refused:
        yard.publisher.publish("tree", source)
    assert yard.registry.versions() == ()
    assert yard.left_behind == []
    assert yard.checked == []  # nothing looked at the files
    return refused.value


@pytest.fixture
def strict(tmp_path: Path) -> Yard:
    """A yard that takes signed versions alone."""
    return Yard(_settings(tmp_path, require_signature=True, trusted_signers=(OUR_LINE,)))


def test_keys_come_back_as_they_were_written() -> None:
    """PEM and line of a key are read as that key; the id is SHA-256 of the DER form that cryptography writes."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = keys.public_bytes(OURS)
    assert keys.public_bytes(keys.read_private(keys.private_pem(OURS))) == public
    assert keys.read_public(keys.public_pem(public).decode()) == keys.read_public(OUR_LINE) == public
    der = OURS.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert keys.key_id(public) == hashlib.sha256(der).hexdigest()
    assert keys.public_pem(public) == OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("pem", [b"", b"text", keys.public_pem(bytes(32))])
def test_what_is_no_private_key_is_said_so(pem: bytes) -> None:
    """Text, a public key, nothing: ValueError in words."""
    with pytest.raises(ValueError, match="no private key"):
        keys.read_private(pem)


def test_keys_of_other_kinds_and_with_passphrases_are_refused() -> None:
    """Only Ed25519, and nothing that would ask for a passphrase."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    other = generate_private_key(SECP256R1()).private_bytes(*form, serialization.NoEncryption())
    with pytest.raises(ValueError, match="not of Ed25519"):
        keys.read_private(other)
    hidden = OURS.private_bytes(*form, serialization.BestAvailableEncryption(b"x"))
    with pytest.raises(ValueError, match="passphrase"):
        keys.read_private(hidden)


def test_a_signature_covers_every_file() -> None:
    """Another hash, name, file more or less of the folder: signature_invalid; the order of the list is nothing."""
    content = sign(FILES, OURS)
    assert signers(content, reversed(FILES)) == (OUR_ID,)
    two = [*FILES, FileEntry("b", "2" * 64, 1)]
    for changed in (FILES[:1], FILES[1:], two, [FILES[0], msgspec.structs.replace(FILES[1], sha256="3" * 64)]):
        with pytest.raises(PublishError) as refused:
            signers(content, changed)
        assert refused.value.code == "signature_invalid"
    renamed = [msgspec.structs.replace(two[0], path="c"), *two[1:]]
    assert signed_digest(two) != signed_digest(renamed)


def test_the_name_of_a_file_alone_is_nothing() -> None:
    """A model of one file gets its canonical name at the publish: the signature holds before and after."""
    content = sign(FILES, OURS)
    assert signers(content, [msgspec.structs.replace(FILES[0], path="model.onnx"), FILES[1]]) == (OUR_ID,)


def _altered(**changes: object) -> bytes:
    found = msgspec.json.decode(sign(FILES, OURS), type=SignatureFile)
    return msgspec.json.encode(msgspec.structs.replace(found, **changes))


ONE = msgspec.json.decode(sign(FILES, OURS), type=SignatureFile).signatures[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"digest": 1}',
        b"x" * 70_000,
        sign(FILES, OURS)[:-3],
        _altered(digest="0" * 64),
        _altered(schema=2),
        _altered(signatures=()),
        _altered(signatures=(ONE,) * 17),
        _altered(signatures=(msgspec.structs.replace(ONE, signature=bytes(64)),)),
        _altered(signatures=(msgspec.structs.replace(ONE, signature=b""),)),
        _altered(signatures=(msgspec.structs.replace(ONE, public_key=b"short"),)),
        _altered(signatures=(msgspec.structs.replace(ONE, public_key=keys.public_bytes(THEIRS)),)),
        _altered(signatures=(ONE, msgspec.structs.replace(ONE, public_key=bytes(32)))),
        sign(FILES, OURS).replace(b'"digest"', b'"more": 1, "digest"'),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(content: bytes) -> None:
    """Broken, cut off, too large, of another key, one bad among good ones: signature_invalid, whoever is trusted."""
    with pytest.raises(PublishError) as refused:
        Trust({OUR_ID}).examine(content, FILES)
    assert refused.value.code == "signature_invalid"
    assert refused.value.detail["field"] == SIGNATURE_FILE


def test_a_signed_version_says_by_whom(strict: Yard, tmp_path: Path) -> None:
    """Published: the manifest names the signer, the files that were signed are kept, the audit event has it too; the
    same again is a no-op."""
    source = _folder(tmp_path / "m")
    version = strict.publisher.publish("tree", source).version
    assert version.manifest.signer == OUR_ID
    assert {entry.path for entry in version.manifest.files} == {"model.onnx", "modelyard.json", SIGNATURE_FILE}
    assert version.manifest.redaction == ("x",)
    assert version_facts(version)["signer"] == OUR_ID
    assert strict.publisher.publish("tree", source).created is False


def test_where_signatures_are_required_a_code_for_each_lack(strict: Yard, tmp_path: Path) -> None:
    """None, another's, one that does not hold: three codes, before anything looks at the files."""
    assert _refused(strict, _folder(tmp_path / "none", None)).code == "signature_missing"
    (tmp_path / "m.onnx").write_bytes(b"weights")
    assert _refused(strict, tmp_path / "m.onnx").code == "signature_missing"
    unknown = _refused(strict, _folder(tmp_path / "theirs", THEIRS))
    assert (unknown.code, unknown.detail["got"]) == ("signer_unknown", THEIR_ID)
    changed = _folder(tmp_path / "changed")
    (changed / "modelyard.json").write_text("{}")
    assert _refused(strict, changed).code == "signature_invalid"


def test_one_trusted_signer_among_several_is_enough(strict: Yard, tmp_path: Path) -> None:
    """Two signatures in one file: the trusted one counts."""
    source = _folder(tmp_path / "m", None)
    (source / SIGNATURE_FILE).write_bytes(sign(hash_folder(source, 10_000), THEIRS, OURS))
    assert strict.publisher.publish("tree", source).version.manifest.signer == OUR_ID


def test_where_none_is_required_it_must_still_hold(yard: Yard, tmp_path: Path) -> None:
    """An unknown signer is named; a signature that does not hold is refused; unsigned versions have no signer, and the
    digest that their manifests always had."""
    changed = _folder(tmp_path / "changed")
    (changed / "m.onnx").write_bytes(b"others")
    assert _refused(yard, changed).code == "signature_invalid"
    assert yard.publisher.publish("tree", _folder(tmp_path / "theirs", THEIRS)).version.manifest.signer == THEIR_ID
    plain = yard.publisher.publish("oak", _folder(tmp_path / "none", None)).version.manifest
    assert plain.signer is msgspec.UNSET
    assert "signer" not in msgspec.json.decode(msgspec.json.encode(plain))
    assert [entry.path for entry in plain.files] == ["model.onnx"]
    assert "signer" not in version_facts(yard.registry.versions("oak")[0])


def test_a_manifest_of_before_keeps_its_digest() -> None:
    """A manifest without a signer has the digest that it had when there were no signatures."""
    signature = Signature((TensorSpec("x", "FP32", (-1, 2)),), ())
    old = Manifest("onnx", "m", (FileEntry("m", "0" * 64, 1),), signature, metrics={"auc": 0.5})
    assert old.digest() == "26a900ca9b06f6b0e3ad6537ab6efabbbbfdb02fb8597132fce2e98a61302cc6"


def test_a_load_asks_again(tmp_path: Path) -> None:
    """Settings that became strict, or trust others now, keep a version out of memory, and the code says why."""
    stub = {"stub.json": b'{"k": 2.0}'}
    entries = [FileEntry(name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in stub.items()]
    for key, line, code in (
        (OURS, OUR_LINE, ""),
        (OURS, keys.public_line(keys.public_bytes(THEIRS)), "signer_unknown"),
        (None, OUR_LINE, "signature_missing"),
    ):
        folder = tmp_path / (code or "good")
        files = stub if key is None else {**stub, SIGNATURE_FILE: sign(entries, key)}
        made = version_folder(folder, files)
        stored = Version("tree", "1", made.digest(), made, 0.0)
        settings = _settings(tmp_path, require_signature=True, trusted_signers=(line,))
        if not code:
            assert load_servable(stored, folder, StubRuntime(), settings, SystemClock()).signature
            continue
        with pytest.raises(PublishError) as refused:
            load_servable(stored, folder, StubRuntime(), settings, SystemClock())
        assert refused.value.code == code


def test_trusted_signers_are_texts_or_files(tmp_path: Path) -> None:
    """PEM, one line, a file with either: the same id."""
    public = keys.public_bytes(OURS)
    for name, content in (("a.pem", keys.public_pem(public)), ("b.txt", OUR_LINE.encode() + b"\n")):
        (tmp_path / name).write_bytes(content)
    for given in (OUR_LINE, keys.public_pem(public).decode(), str(tmp_path / "a.pem"), str(tmp_path / "b.txt")):
        assert trusted_ids((given,)) == {OUR_ID}


@pytest.mark.parametrize("given", ["ed25519:AAAA", "ed25519:?", "/nonexistent/key.pem", "-----BEGIN x", ""])
def test_a_trusted_signer_that_is_no_key_ends_the_start(given: str, tmp_path: Path) -> None:
    """setting_invalid that names the setting; so does a demand for signatures that trusts nobody."""
    for settings in (_settings(tmp_path, trusted_signers=(given,)), _settings(tmp_path, require_signature=True)):
        with pytest.raises(SettingsError) as refused:
            Trust.of(settings.models)
        assert (refused.value.code, refused.value.detail["field"]) == ("setting_invalid", "models.trusted_signers")
