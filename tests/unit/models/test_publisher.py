"""Publishing: immutable versions, no-ops, numbers, refusals that leave nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from publish_yard import Yard  # type: ignore[import-not-found]

from modelyard.core.clock import SystemClock
from modelyard.core.errors import ConflictError, InvalidRequestError, ModelyardError, PublishError, TooLargeError
from modelyard.core.settings import load_settings
from modelyard.models.ports import Version
from modelyard.models.publish import Publisher


def _file(folder: Path, content: bytes = b"weights", name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_versions_count_up_and_the_same_bytes_are_a_no_op(yard: Yard, tmp_path: Path) -> None:
    """Without a version the next number is taken; bytes that are there already make none, whatever they are called."""
    first = yard.publisher.publish("tree", _file(tmp_path))
    again = yard.publisher.publish("tree", _file(tmp_path, name="other.onnx"))
    second = yard.publisher.publish("tree", _file(tmp_path, b"others"))
    assert (first.created, again.created, second.created) == (True, False, True)
    assert (first.version.version, again.version.version, second.version.version) == ("1", "1", "2")
    assert len(yard.checked) == 2


def test_numbers_ignore_names_and_go_past_the_highest(yard: Yard, tmp_path: Path) -> None:
    """The next version is the highest integer + 1; `v9` and `2024-01` are names."""
    for name in ("7", "v9", "2024-01"):
        yard.publisher.publish("tree", _file(tmp_path, name.encode()), version=name)
    assert yard.publisher.publish("tree", _file(tmp_path, b"new")).version.version == "8"


def test_other_bytes_under_a_version_are_refused(yard: Yard, tmp_path: Path) -> None:
    """A version never changes: 409 version_exists, before anything is checked or stored."""
    yard.publisher.publish("tree", _file(tmp_path), version="1")
    with pytest.raises(ConflictError) as refused:
        yard.publisher.publish("tree", _file(tmp_path, b"others"), version="1")
    assert refused.value.code == "version_exists"
    assert len(yard.checked) == 1
    assert yard.left_behind == []


def test_what_is_stored_is_what_was_published(yard: Yard, tmp_path: Path) -> None:
    """The artifact holds the bytes under a canonical name, and its manifest has their SHA-256 (P5)."""
    version = yard.publisher.publish("tree", _file(tmp_path)).version
    folder = yard.artifacts.open(version.digest)
    assert (folder / "model.onnx").read_bytes() == b"weights"
    assert version.manifest.entry == "model.onnx"
    assert version.digest == version.manifest.digest()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a..b", "x" * 129, "a\nb", "ümlaut", "a b", "-"])
def test_names_that_are_refused(yard: Yard, tmp_path: Path, name: str) -> None:
    """A model or version name that is unsafe in a path is name_invalid, and nothing is written."""
    for arguments in ({"model": name}, {"model": "tree", "version": name}):
        with pytest.raises(InvalidRequestError) as refused:
            yard.publisher.publish(source=_file(tmp_path), **arguments)
        assert refused.value.code == "name_invalid"
    assert yard.left_behind == []


def test_a_refused_model_leaves_nothing(yard: Yard, tmp_path: Path) -> None:
    """Any refusal of the check: no version, no artifact, no staged file."""
    yard.refusal = PublishError("model_unreadable", "no", field="model")
    with pytest.raises(PublishError):
        yard.publisher.publish("tree", _file(tmp_path))
    assert yard.registry.versions() == ()
    assert yard.left_behind == []


def test_a_model_over_the_bound_is_refused(yard: Yard, tmp_path: Path) -> None:
    """models.max_version_bytes holds for a file and for a folder together."""
    yard.publisher._settings = load_settings(data=tmp_path / "data", **{"models.max_version_bytes": 2000})
    (tmp_path / "folder").mkdir()
    for name in ("a", "b", "c"):
        _file(tmp_path / "folder", bytes(900), name)
    for source in (tmp_path / "folder", _file(tmp_path, bytes(2001))):
        with pytest.raises(TooLargeError):
            yard.publisher.publish("tree", source)
    assert yard.left_behind == []


def test_a_folder_says_more_in_modelyard_json(yard: Yard, tmp_path: Path) -> None:
    """Metrics, example, labels, columns, redaction and provenance arrive in the manifest; the file itself is no part
    of the version's content; what the command says goes before."""
    folder = tmp_path / "folder"
    folder.mkdir()
    _file(folder)
    said = {
        "metrics": {"auc": 0.9, "f1": 0.8},
        "columns": ["age", "income"],
        "labels": ["no", "yes"],
        "redaction": ["income"],
        "provenance": {"commit": "abc"},
        "example": {"inputs": []},
    }
    (folder / "modelyard.json").write_text(json.dumps(said))
    manifest = yard.publisher.publish("tree", folder, metrics={"auc": 0.95}).version.manifest
    assert manifest.metrics == {"auc": 0.95, "f1": 0.8}
    assert manifest.signature.inputs[0].columns == ("age", "income")
    assert manifest.signature.outputs[0].labels == ("no", "yes")
    assert (manifest.redaction, manifest.provenance) == (("income",), {"producer": "test", "commit": "abc"})
    assert [entry.path for entry in manifest.files] == ["model.onnx"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{", "manifest_invalid"),
        ('{"metric": {}}', "manifest_invalid"),
        ('{"labels": "yes"}', "manifest_invalid"),
        ('{"columns": ["a"]}', "signature_conflict"),
        ('{"columns": ["a", "a"]}', "signature_conflict"),
        ('{"labels": ["a", "b", "c"]}', "signature_conflict"),
        ('{"signature": {"inputs": [{"name": "z"}]}}', "signature_conflict"),
        ('{"signature": {"inputs": [{"name": "x", "datatype": "INT64"}]}}', "signature_conflict"),
        ('{"signature": {"inputs": [{"name": "x", "shape": [-1, 3]}]}}', "signature_conflict"),
        ('{"redaction": ["salary"]}', "manifest_invalid"),
        ('{"redaction": {"salary": "drop"}}', "manifest_invalid"),
        ('{"redaction": {"x": "forget"}}', "manifest_invalid"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(yard: Yard, tmp_path: Path, said: str, code: str) -> None:
    """modelyard.json that is broken or contradicts the model is refused with the field, and nothing is kept."""
    folder = tmp_path / "folder"
    folder.mkdir()
    _file(folder)
    (folder / "modelyard.json").write_text(said)
    with pytest.raises(PublishError) as refused:
        yard.publisher.publish("tree", folder)
    assert refused.value.code == code
    assert refused.value.detail["field"]
    assert yard.registry.versions() == ()
    assert yard.left_behind == []


@pytest.mark.parametrize("trick", ["symlink", "folder_symlink", "hardlink", "pipe", "reserved", "newline", "deep"])
def test_folders_that_are_refused(yard: Yard, tmp_path: Path, trick: str) -> None:
    """Links, pipes, reserved and unprintable names are refused; a pipe does not make the server wait."""
    folder, outside = tmp_path / "folder", _file(tmp_path, b"secret", "outside")
    folder.mkdir()
    _file(folder)
    if trick == "symlink":
        (folder / "x").symlink_to(outside)
    elif trick == "folder_symlink":
        (folder / "x").symlink_to(tmp_path)
    elif trick == "hardlink":
        (folder / "x").hardlink_to(outside)
    elif trick == "pipe":
        os.mkfifo(folder / "x")
    elif trick == "deep":
        (folder / "/".join("d" * 20)).mkdir(parents=True)
    else:
        _file(folder, name="manifest.json" if trick == "reserved" else "a\nb")
    with pytest.raises(PublishError) as refused:
        yard.publisher.publish("tree", folder)
    assert refused.value.code == ("manifest_invalid" if trick == "reserved" else "archive_unsafe")
    assert yard.left_behind == []


def test_two_publishers_of_one_model_get_two_numbers(yard: Yard, tmp_path: Path) -> None:
    """Another publish that took the number between the look and the write costs a retry, not an error."""
    other = yard.publisher.publish("tree", _file(tmp_path)).version
    plain = yard.publisher._next
    answers = iter([other.version, plain("tree")])
    yard.publisher._next = lambda model: next(answers)  # type: ignore[method-assign]
    assert yard.publisher.publish("tree", _file(tmp_path, b"others")).version.version == "2"


def test_a_source_that_is_not_there_is_named(yard: Yard, tmp_path: Path) -> None:
    """A missing file is a sentence with its name, not with the path of this host."""
    with pytest.raises(ModelyardError) as refused:
        yard.publisher.publish("tree", tmp_path / "nothing.onnx")
    assert refused.value.code == "parameter_invalid"
    assert str(tmp_path) not in refused.value.message


def test_what_a_killed_publish_left_is_swept(yard: Yard, tmp_path: Path) -> None:
    """A staging folder of more than a day is deleted by the next publish; a young one may be at work and stays."""
    staging = yard.settings.data / "staging"
    for name, age_s in (("old", 90_000), ("young", 60)):
        (staging / name).mkdir(parents=True)
        (staging / name / "weights").write_bytes(b"x")
        then = time.time() - age_s
        os.utime(staging / name, (then, then))
    yard.publisher.publish("tree", _file(tmp_path))
    assert [path.name for path in staging.iterdir()] == ["young"]


def test_what_would_not_fit_into_memory_leaves_nothing(yard: Yard, tmp_path: Path) -> None:
    """Who admits sees the version as it would be, once for new bytes; its refusal leaves no file and no version."""
    seen: list[Version] = []

    def admit(version: Version) -> None:
        seen.append(version)
        if version.model == "large":
            raise ConflictError("memory_insufficient", "No.", field="models.memory_bytes")

    publisher = Publisher(yard.registry, yard.artifacts, yard.settings, SystemClock(), yard.check, admit)
    for _ in range(2):
        publisher.publish("tree", _file(tmp_path))
    with pytest.raises(ConflictError):
        publisher.publish("large", _file(tmp_path, b"large"), version="v1")
    assert [(one.model, one.version) for one in seen] == [("tree", "1"), ("large", "v1")]
    assert [one.model for one in yard.registry.versions()] == ["tree"]
    assert not yard.artifacts.has(seen[1].digest)
    assert yard.artifacts.has(seen[0].digest)
    assert yard.left_behind == []
