"""Bundles of OpenSSF model signing: made by its own tool over real models, and held to what they say."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import magika
import model_signing
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from publish_yard import Yard  # type: ignore[import-not-found]

import modelsigners as made
from modelyard.core.clock import SystemClock
from modelyard.core.errors import PublishError
from modelyard.core.settings import Settings, load_settings
from modelyard.http.forms.views import version_view
from modelyard.models.load import load_servable
from modelyard.models.ports import Version
from modelyard.models.signing import keys
from modelyard.models.signing.openssf.bundle import MAX_BUNDLE_BYTES
from modelyard.models.signing.statement import SIGNATURE_FILE
from modelyard.models.signing.statement import sign as sign_ed25519
from modelyard.models.signing.trust import Trust
from modelyard.models.signing.trusted import id_of, trusted_ids, trusted_signers
from modelyard.models.stage import hash_folder
from modelyard.storage.audit_row import version_facts
from modelyard.testing import StubRuntime, version_folder

KEY, OTHER = made.key(), made.key()
ROOT = made.authority(begins_days=-20)
MIDDLE = made.Certified(ROOT, "middle", authority=True, begins_days=-20)
BUNDLE = "model.sig"
NOW = SystemClock().now()


def _settings(folder: Path, *trusted: str, required: bool = True) -> Settings:
    asked = {"models.require_signature": required, "models.trusted_signers": trusted}
    return load_settings(data=folder / "data", **asked)


def _magika(place: Path) -> Path:
    """Google's detector of file types, as its package holds it, with words of its publisher."""
    source = Path(magika.__file__).parent / "models" / "standard_v3_3"
    shutil.copytree(source, place)
    (place / "modelyard.json").write_text(json.dumps({"metrics": {"f1": 0.99}}))
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model in two files and a folder, unsigned."""
    place = tmp_path / "m"
    (place / "parts").mkdir(parents=True)
    (place / "m.onnx").write_bytes(b"weights")
    (place / "parts" / "more.bin").write_bytes(b"more weights")
    (place / "modelyard.json").write_text("{}")
    return place


def _examine(folder: Path, *trusted: str, at: float | None = NOW) -> Any:
    return Trust(trusted_signers(trusted), True).examine_folder(folder, hash_folder(folder, 10**9), at)


def _refusal(folder: Path, *trusted: str, code: str = "signature_invalid") -> PublishError:
    with pytest.raises(PublishError) as refused:
        _examine(folder, *trusted)
    assert refused.value.code == code, refused.value.message
    return refused.value


@pytest.mark.parametrize("curve", made.CURVES)
def test_a_real_model_signed_by_the_tool_with_a_key(curve: str, tmp_path: Path) -> None:
    """Signed by the tool, accepted by its own verifier and by a server that demands signatures: the version, its audit
    event and its view name the key and the method; bundle and words are kept as they came; again is a no-op."""
    key = made.key(curve)
    source = _magika(tmp_path / "magika")
    bundle = made.sign(source, key)
    (tmp_path / "pub").write_text(made.public_pem(key))
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=tmp_path / "pub")
    verifier.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(paths=[bundle]))
    verifier.verify(source, bundle)
    yard = Yard(_settings(tmp_path, str(tmp_path / "pub")))
    version = yard.publisher.publish("magika", source).version
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signer = hashlib.sha256(der).hexdigest()
    assert (version.manifest.signer, version.manifest.signing_method) == (signer, "openssf-key")
    assert {entry.path for entry in version.manifest.files} == {p.name for p in source.iterdir()}
    assert yard.checked[0].signed.trusted is True
    facts = version_facts(version)
    assert (facts["signer"], facts["signing_method"]) == (signer, "openssf-key")
    assert "signing_authority" not in facts
    shown = version_view(version, trusted_ids((made.public_pem(key),)))["signing"]
    assert shown == {
        "signer": signer, "trusted": True, "method": "openssf-key", "authority": None,
        "checked_at": version_view(version)["created_at"],
    }  # fmt: skip
    assert version_view(version)["signing"]["trusted"] is False
    assert yard.publisher.publish("magika", source).created is False


@pytest.mark.parametrize("way", ["root", "middle", "middle trusted", "itself"])
def test_a_real_model_signed_by_the_tool_with_a_certificate(way: str, tmp_path: Path) -> None:
    """Issued by a trusted authority, by one below it, by one in between that is trusted alone, or trusted itself: the
    tool's verifier agrees where it knows the way, and the authority's key is named."""
    source = _magika(tmp_path / "magika")
    signer = made.Certified({"root": ROOT, "itself": None}.get(way, MIDDLE))
    trusted = {"middle trusted": MIDDLE, "itself": signer}.get(way, ROOT)
    bundle = made.sign(source, signer)
    (tmp_path / "ca.pem").write_text(trusted.pem)
    if way != "middle trusted":
        verifier = model_signing.verifying.Config().use_certificate_verifier(certificate_chain=[tmp_path / "ca.pem"])
        verifier.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(paths=[bundle]))
        verifier.verify(source, bundle)
    version = Yard(_settings(tmp_path, str(tmp_path / "ca.pem"))).publisher.publish("magika", source).version
    assert version.manifest.signing_method == "openssf-certificate"
    assert version.manifest.signer == id_of(signer.key.public_key())
    assert version_facts(version)["signing_authority"] == id_of(trusted.key.public_key())
    assert version_view(version, trusted_ids((trusted.pem,)))["signing"]["trusted"] is True
    assert version_view(version, trusted_ids((made.public_pem(OTHER),)))["signing"]["trusted"] is False


def test_a_key_of_ed25519_signs_bundles_too(folder: Path) -> None:
    """The tool does not make them, others may: signed by the key whose line is trusted."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    bundle = made.resigned(made.sign(folder, OTHER).read_bytes(), key, lambda statement: None)
    hint = hashlib.sha256(made.public_pem(key).encode()).hexdigest()
    bundle = made.changed(bundle, lambda found: found["verificationMaterial"]["publicKey"].update(hint=hint))
    (folder / BUNDLE).write_bytes(bundle)
    line = keys.public_line(keys.public_bytes(key))
    assert _examine(folder, line).signer == keys.key_id(keys.public_bytes(key))
    _refusal(folder, made.public_pem(OTHER), code="signer_unknown")


def test_a_model_of_one_file_has_no_name(tmp_path: Path) -> None:
    """The tool calls it `.`: the bundle holds for the one file beside it, and for no two,
    not even of the same content."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "tree.onnx").write_bytes(b"weights")
    made.sign(tmp_path / "m" / "tree.onnx", KEY, tmp_path / "m" / BUNDLE)
    manifest = (
        Yard(_settings(tmp_path, made.public_pem(KEY))).publisher.publish("tree", tmp_path / "m").version.manifest
    )
    assert [entry.path for entry in manifest.files] == ["tree.onnx", BUNDLE]
    (tmp_path / "m" / "copy.onnx").write_bytes(b"weights")
    _refusal(tmp_path / "m", made.public_pem(KEY))


def test_a_folder_of_one_file_keeps_its_name(folder: Path, tmp_path: Path) -> None:
    """What was signed by name stays so: the version's file is not renamed, and its load finds it covered."""
    shutil.rmtree(folder / "parts")
    made.sign(folder, KEY)
    settings = _settings(tmp_path, made.public_pem(KEY))
    manifest = Yard(settings).publisher.publish("tree", folder).version.manifest
    assert (manifest.entry, [entry.path for entry in manifest.files]) == (
        "m.onnx",
        ["m.onnx", BUNDLE, "modelyard.json"],
    )
    assert Trust.of(settings.models).examine_version(folder, manifest).trusted


def test_a_signature_of_modelyard_comes_first(folder: Path, tmp_path: Path) -> None:
    """Beside `modelyard.sig` a bundle is a file like others, covered by it, whoever made it."""
    made.sign(folder, OTHER)
    ours = keys.key_from_seed(bytes(32))
    (folder / SIGNATURE_FILE).write_bytes(sign_ed25519(hash_folder(folder, 10**6), ours))
    line = keys.public_line(keys.public_bytes(ours))
    manifest = Yard(_settings(tmp_path, line)).publisher.publish("tree", folder).version.manifest
    assert manifest.signer == keys.key_id(keys.public_bytes(ours))
    assert {BUNDLE, SIGNATURE_FILE} <= {entry.path for entry in manifest.files}
    assert "signing_method" not in json.loads(json.dumps(version_facts(Version("t", "1", "", manifest, 0.0))))
    (folder / BUNDLE).write_bytes(b"{}")
    _refusal(folder, line)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file changed": (lambda m: (m / "m.onnx").write_bytes(b"others"), "`m.onnx` is changed since"),
    "a file missing": (lambda m: (m / "parts" / "more.bin").unlink(), "`parts/more.bin` is missing"),
    "a file more": (lambda m: (m / "parts" / "new.py").write_text(""), "`parts/new.py` is not covered by it"),
    "words changed": (lambda m: (m / "modelyard.json").write_text("{ }"), "`modelyard.json` is changed since"),
    "a file of git": (lambda m: (m / ".gitattributes").write_text(""), "`.gitattributes` is not covered by it"),
    "a file in .git": (
        lambda m: ((m / ".git").mkdir(), (m / ".git" / "hook.py").write_text("")),
        "`.git/hook.py` is not covered by it",
    ),
    "a second bundle": (
        lambda m: shutil.copy(m / BUNDLE, m / "parts" / BUNDLE),
        "`parts/model.sig` is not covered by it",
    ),
    "four more": (
        lambda m: [(m / f"{i}").write_text("") for i in range(4)],
        "`0`, `1`, `2` and 1 more are not covered by it",
    ),
}


@pytest.mark.parametrize("change", FILES)
def test_every_file_is_covered(change: str, folder: Path, tmp_path: Path) -> None:
    """Changed, missing, one more, git's own that the tool ignores: refused by name before anything looks at the files,
    whether signatures are required or not."""
    made.sign(folder, KEY)
    spoil, expected = FILES[change]
    spoil(folder)
    for required in (True, False):
        yard = Yard(_settings(tmp_path, made.public_pem(KEY), required=required))
        with pytest.raises(PublishError) as refused:
            yard.publisher.publish("tree", folder)
        assert refused.value.code == "signature_invalid"
        assert expected in refused.value.message
        assert (yard.checked, yard.left_behind, yard.registry.versions()) == ([], [], ())


def test_paths_that_the_statement_would_ignore_are_not_ignored(folder: Path) -> None:
    """A signer may list paths to ignore in the statement: signed or not, a file that is not covered is refused."""
    ignoring = model_signing.hashing.Config().set_ignored_paths(paths=[folder / "parts"])
    (folder.parent / "key").write_bytes(made.private_pem(KEY))
    how = model_signing.signing.Config().use_elliptic_key_signer(private_key=folder.parent / "key")
    how.set_hashing_config(ignoring).sign(folder, folder / BUNDLE)
    assert "`parts/more.bin` is not covered" in _refusal(folder, made.public_pem(KEY)).message


def _named(name: str) -> made.Change:
    def change(statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"][0]["name"] = name

    return change


def _set(*path: Any, to: Any) -> made.Change:
    """Puts a value at a place inside."""

    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = to

    return change


def _twice(statement: dict[str, Any]) -> None:
    resources = statement["predicate"]["resources"]
    resources.append(resources[0])
    whole = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    statement["subject"][0]["digest"]["sha256"] = whole


STATEMENTS: dict[str, tuple[made.Change | bytes, str]] = {
    "a file twice": (_twice, "twice"),
    "a path upwards": (_named("../m.onnx"), "which no version may hold"),
    "an absolute path": (_named("/etc/passwd"), "which no version may hold"),
    "a path with a line end": (_named("a\nb"), "which no version may hold"),
    "a backslash": (_named("..\\m.onnx"), "which no version may hold"),
    "the manifest": (_named("manifest.json"), "which no version may hold"),
    "no name": (_named(""), "which no version may hold"),
    "the bundle itself": (_named(BUNDLE), "of before"),
    "one file for three": (_named("."), "which no version may hold"),
    "a digest of another kind": (_set("predicate", "resources", 0, "algorithm", to="blake2b"), "no SHA-256"),
    "a digest that is none": (_set("predicate", "resources", 0, "digest", to="00"), "no SHA-256"),
    "a digest in capitals": (_set("predicate", "resources", 0, "digest", to="A" * 64), "no SHA-256"),
    "another digest": (_set("predicate", "resources", 0, "digest", to="0" * 64), "of the whole model"),
    "another whole": (_set("subject", 0, "digest", "sha256", to="0" * 64), "of the whole model"),
    "no subject": (_set("subject", to=[]), "of the whole model"),
    "two subjects": (lambda found: found["subject"].append(found["subject"][0]), "of the whole model"),
    "no files": (_set("predicate", "resources", to=[]), "1 to 10000 files"),
    "shards": (_set("predicate", "serialization", "method", to="shards"), "in another way"),
    "hashed by BLAKE2": (_set("predicate", "serialization", "hash_type", to="blake2"), "in another way"),
    "how is not said": (lambda found: found["predicate"].pop("serialization"), "serialization"),
    "the form of 0.2": (_set("predicateType", to="https://model_signing/Digests/v0.1"), "another kind"),
    "provenance": (_set("predicateType", to="https://slsa.dev/provenance/v1"), "another kind"),
    "another statement": (_set("_type", to="https://in-toto.io/Statement/v0.1"), "another kind"),
    "a number for a name": (lambda found: found["predicate"]["resources"][0].update(name=1), "Expected `str`"),
    "a list": (b"[]", "Expected `object`"),
    "no JSON": (b"x", "damaged"),
    "a name twice": (b'{"_type": 1, "_type": 2}', "damaged"),
    "deep": (b"[" * 30_000, "damaged"),
}


@pytest.mark.parametrize("change", STATEMENTS)
def test_a_statement_that_says_something_else_is_refused(change: str, folder: Path) -> None:
    """Signed by a trusted key, and still not one that a version is published by: signature_invalid and why."""
    bundle = made.sign(folder, KEY).read_bytes()
    spoil, expected = STATEMENTS[change]
    (folder / BUNDLE).write_bytes(made.resigned(bundle, KEY, spoil))
    assert expected in _refusal(folder, made.public_pem(KEY)).message


def _tlog(found: dict[str, Any]) -> None:
    found["verificationMaterial"]["tlogEntries"] = [{"logIndex": "1"}]


def _keyless(found: dict[str, Any]) -> None:
    found["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": [{}]}


MATERIAL = "verificationMaterial"
OUTSIDES: dict[str, tuple[made.Change | bytes, str]] = {
    "empty": (b"", "damaged"),
    "no JSON": (b"{", "damaged"),
    "no text": (b"\xff\xfe", "damaged"),
    "a list": (b"[]", "no Sigstore bundle"),
    "deep": (b'{"mediaType":' + b"[" * 30_000, "damaged"),
    "huge": (b" " * (MAX_BUNDLE_BYTES + 1), "larger than"),
    "millions of nothing": (b'{"mediaType": [' + b"[]," * 2_700_000 + b"[]]}", "objects and lists"),
    "an older form": (_set("mediaType", to="application/vnd.dev.sigstore.bundle+json;version=0.2"), "version 0.3"),
    "Sigstore, in its log": (_tlog, "keyless"),
    "Sigstore, by its certificate": (_keyless, "keyless"),
    "no key": (lambda found: found[MATERIAL].pop("publicKey"), "must name a key"),
    "key and certificates": (_set(MATERIAL, "x509CertificateChain", to={"certificates": []}), "must name a key"),
    "no material": (lambda found: found.pop(MATERIAL), "Expected `object`"),
    "no envelope": (lambda found: found.pop("dsseEnvelope"), "dsseEnvelope"),
    "another payload": (_set("dsseEnvelope", "payloadType", to="text/plain"), "one in-toto statement"),
    "no signature": (_set("dsseEnvelope", "signatures", to=[]), "one signature"),
    "two signatures": (lambda f: f["dsseEnvelope"]["signatures"].append({"sig": ""}), "one signature"),
    "an empty signature": (_set("dsseEnvelope", "signatures", 0, "sig", to=""), "not made by the key"),
    "another's signature": (_set("dsseEnvelope", "signatures", 0, "sig", to="AAAA"), "not made by the key"),
    "no base64": (_set("dsseEnvelope", "payload", to="?"), "base64"),
    "a name twice": (b'{"mediaType": "a", "mediaType": "b"}', "damaged"),
}


@pytest.mark.parametrize("change", OUTSIDES)
def test_a_damaged_bundle_is_refused(change: str, folder: Path) -> None:
    """Cut off, of another version or method, twice signed, huge: signature_invalid, field and reason, whoever is
    trusted."""
    bundle = made.sign(folder, KEY).read_bytes()
    spoil, expected = OUTSIDES[change]
    (folder / BUNDLE).write_bytes(spoil if isinstance(spoil, bytes) else made.changed(bundle, spoil))
    refused = _refusal(folder, made.public_pem(KEY))
    assert expected in refused.message
    assert refused.detail["field"] == BUNDLE


def test_a_bit_of_a_bundle_is_nothing_or_a_refusal(folder: Path) -> None:
    """400 seeded changes of a byte anywhere, by key and by certificate: refused, or the same signer of the same files;
    nothing else is ever raised."""
    chance, fates = random.Random(46), Counter[str]()
    for by, trusted in ((KEY, made.public_pem(KEY)), (made.Certified(MIDDLE), ROOT.pem)):
        bundle = made.sign(folder, by).read_bytes()
        expected = _examine(folder, trusted)
        for _ in range(200):
            altered = bytearray(bundle)
            altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
            (folder / BUNDLE).write_bytes(altered)
            try:
                assert _examine(folder, trusted) == expected
                fates["the same"] += 1
            except PublishError as refused:
                fates[refused.code] += 1
    print(f"bytes changed in bundles: {dict(fates)}")
    assert fates.keys() == {"the same", "signature_invalid", "signer_unknown"}
    assert fates["the same"] < 100


def test_a_key_that_nobody_trusts(folder: Path, tmp_path: Path) -> None:
    """Refused at the publish even where no signature is required: it could not be checked, and must not look so."""
    made.sign(folder, OTHER)
    for required in (True, False):
        yard = Yard(_settings(tmp_path, made.public_pem(KEY), required=required))
        with pytest.raises(PublishError) as refused:
            yard.publisher.publish("tree", folder)
        assert refused.value.code == "signer_unknown"
        assert refused.value.detail["got"] == hashlib.sha256(made.public_pem(OTHER).encode()).hexdigest()
        assert yard.checked == []


def test_a_bundle_without_a_hint_is_tried_with_every_key(folder: Path) -> None:
    """The tool's first versions named no key: one of the trusted ones made it, or nobody did."""
    bundle = made.changed(made.sign(folder, KEY).read_bytes(), _set(MATERIAL, "publicKey", to={}))
    (folder / BUNDLE).write_bytes(bundle)
    assert _examine(folder, made.public_pem(OTHER), made.public_pem(KEY)).signer == id_of(KEY.public_key())
    _refusal(folder, made.public_pem(OTHER), code="signer_unknown")


def test_a_hint_does_not_choose_who_signed(folder: Path) -> None:
    """Another's bundle that names a trusted key: signature_invalid."""
    bundle = made.sign(folder, OTHER).read_bytes()
    hint = hashlib.sha256(made.public_pem(KEY).encode()).hexdigest()
    (folder / BUNDLE).write_bytes(made.changed(bundle, _set(MATERIAL, "publicKey", "hint", to=hint)))
    assert "not made by the key" in _refusal(folder, made.public_pem(KEY)).message


def _stored(tmp_path: Path, by: Any) -> tuple[Version, Path]:
    """A published version of a stub's model, signed by the tool."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "stub.json").write_bytes(b'{"k": 2.0}')
    bundle = made.sign(source, by).read_bytes()
    place = tmp_path / "stored"
    plain = version_folder(place, {"stub.json": b'{"k": 2.0}', BUNDLE: bundle})
    return Version("tree", "1", plain.digest(), plain, 0.0), place


def _signed_version(version: Version, signer: str) -> Version:
    manifest = msgspec.structs.replace(version.manifest, signer=signer, signing_method="openssf-key")
    return msgspec.structs.replace(version, manifest=manifest, digest=manifest.digest())


def test_a_load_asks_again(tmp_path: Path) -> None:
    """Trusted: it loads. Not any more: signer_unknown where signatures are required, loaded where they are not. A
    `model.sig` that was an ordinary file at its publish holds nothing up."""
    version, place = _stored(tmp_path, KEY)
    signed = _signed_version(version, id_of(KEY.public_key()))

    def load(which: Version, *trusted: str, required: bool) -> None:
        settings = _settings(tmp_path, *trusted, required=required)
        load_servable(which, place, StubRuntime(), settings, SystemClock())

    load(signed, made.public_pem(KEY), required=True)
    load(signed, made.public_pem(OTHER), required=False)
    with pytest.raises(PublishError) as refused:
        load(signed, made.public_pem(OTHER), required=True)
    assert refused.value.code == "signer_unknown"
    plain = version_folder(tmp_path / "notes", {"stub.json": b'{"k": 2.0}', BUNDLE: b"notes"})
    place = tmp_path / "notes"
    load(Version("tree", "2", plain.digest(), plain, 0.0), required=False)


def test_a_version_outlives_its_certificate(tmp_path: Path) -> None:
    """A certificate that ran out stops publishes, not what was published: no date takes a version out of service."""
    old = made.Certified(ROOT, begins_days=-9, ends_days=-1)
    version, place = _stored(tmp_path, old)
    signed = _signed_version(version, id_of(old.key.public_key()))
    load_servable(signed, place, StubRuntime(), _settings(tmp_path, ROOT.pem), SystemClock())
    _refusal(tmp_path / "source", ROOT.pem)


def test_names_of_files_are_bounded_in_what_is_said(folder: Path) -> None:
    """What a stranger wrote is shown short and printable."""
    bundle = made.sign(folder, KEY).read_bytes()
    (folder / BUNDLE).write_bytes(made.resigned(bundle, KEY, _named("\x1b[31m" + "x" * 100_000)))
    refused = _refusal(folder, made.public_pem(KEY))
    assert len(refused.message) < 400
    assert refused.message.isprintable()
