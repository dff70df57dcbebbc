"""What the store in a bucket promises beyond its port: parts, encryption, one writer, what a bucket may hold.

The service is an emulator: these tests show what we send and how we take answers, not what AWS answers.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from modelyard.core.clock import SystemClock
from modelyard.core.errors import ConflictError, ModelyardError, PublishError, SettingsError, UnavailableError
from modelyard.core.settings import ArtifactsSettings
from modelyard.models.manifest import FileEntry
from modelyard.storage.file.artifacts import FolderArtifactStore
from modelyard.storage.file.cache import ArtifactCache
from modelyard.storage.s3.location import Location
from modelyard.storage.s3.store import S3ArtifactStore
from modelyard.testing import manifest, version_folder
from objectstore.emulator import Emulator

MIB = 1024 * 1024
LARGE = random.Random(7).randbytes(11 * MIB + 1)
"""Three parts of five MiB."""


@pytest.fixture
def bucket(emulator: Emulator) -> str:
    """An empty bucket."""
    return emulator.bucket()


@pytest.fixture
def store(emulator: Emulator, bucket: str, tmp_path: Path) -> Callable[..., S3ArtifactStore]:
    """Makes stores in the bucket, each with a cache of its own."""
    numbers = iter(range(100))

    def make(**settings: Any) -> S3ArtifactStore:
        given = emulator.settings(bucket, **settings)
        cache = ArtifactCache(tmp_path / f"cache-{next(numbers)}", given.cache_bytes, given.timeout_s)
        return S3ArtifactStore(given, cache, SystemClock())

    return make


def source(folder: Path, **files: bytes) -> tuple[str, Path]:
    """A version's folder and its digest."""
    folder.mkdir(exist_ok=True)
    return version_folder(folder, files).digest(), folder


def test_a_file_of_many_parts(store: Callable[..., S3ArtifactStore], tmp_path: Path) -> None:
    """It goes up in parts and comes down in ranges, on another machine, byte for byte; the layout is the folder
    store's."""
    digest, folder = source(tmp_path / "source", model=LARGE, small=b"x" * (5 * MIB), empty=b"")
    store().put(digest, folder)
    place = store().open(digest)
    assert (place / "model").read_bytes() == LARGE
    assert (place / "small").read_bytes() == b"x" * (5 * MIB)
    assert (place / "empty").read_bytes() == b""


def test_the_layout_is_the_folder_stores(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    """Keys are `prefix/<2>/<digest>/<path>`: a folder's artifacts can be copied to a bucket as they are, and back."""
    digest, folder = source(tmp_path / "source", model=b"weights")
    store().put(digest, folder)
    place = f"models/{digest[:2]}/{digest}"
    assert emulator.keys(bucket).keys() == {f"{place}/model", f"{place}/manifest.json"}
    root = tmp_path / "artifacts"
    FolderArtifactStore(root).put(digest, folder)
    for path in root.glob("??/**/*"):
        if path.is_file():
            key = str(path.relative_to(root))
            emulator.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    bare = store(url=f"s3://{bucket}")  # without a prefix
    assert bare.has(digest)
    assert (bare.open(digest) / "model").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("settings", "kind", "key"),
    [
        ({}, "aws:kms", None),
        ({"kms_key_id": "alias/models"}, "aws:kms", "alias/models"),
        ({"encryption": "AES256"}, "AES256", None),
    ],
)
def test_every_object_is_encrypted_as_the_settings_say(
    store: Callable[..., S3ArtifactStore],
    emulator: Emulator,
    bucket: str,
    tmp_path: Path,
    settings: dict[str, str],
    kind: str,
    key: str | None,
) -> None:
    """One-part objects, multipart objects and the manifest alike; by default with the bucket's KMS key."""
    digest, folder = source(tmp_path / "source", model=LARGE, small=b"x")
    store(**settings).put(digest, folder)
    keys = emulator.keys(bucket)
    assert len(keys) == 3
    for name in keys:
        head = emulator.client.head_object(Bucket=bucket, Key=name)
        assert head["ServerSideEncryption"] == kind
        assert key is None or key in head["SSEKMSKeyId"]


@pytest.mark.parametrize("content", [LARGE, b"small"], ids=["parts", "one"])
def test_other_bytes_at_the_key_stay_and_are_a_conflict(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path, content: bytes
) -> None:
    """A key is written once: whoever comes second with other bytes gets version_exists, what lies there stays, no
    version appears, and no parts are left."""
    mine = store()
    digest, folder = source(tmp_path / "source", model=content)
    key = f"models/{digest[:2]}/{digest}/model"
    for other in (content[:-1] + b"?", content[:-1], content + b"more"):
        emulator.client.put_object(Bucket=bucket, Key=key, Body=other)
        with pytest.raises(ConflictError) as caught:
            mine.put(digest, folder)
        assert (caught.value.code, caught.value.detail["field"]) == ("version_exists", "model")
        assert emulator.client.get_object(Bucket=bucket, Key=key)["Body"].read() == other
        assert not mine.has(digest)
        assert "Uploads" not in emulator.client.list_multipart_uploads(Bucket=bucket)


def test_a_manifest_of_something_else_is_a_conflict(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    """If another manifest comes between our look and our write, it stays, and the second writer hears of it."""
    digest, folder = source(tmp_path / "source", model=b"weights")
    mine = store()
    mine.has = lambda digest: False  # type: ignore[method-assign]  # the moment before the other writer
    key = f"models/{digest[:2]}/{digest}/manifest.json"
    emulator.client.put_object(Bucket=bucket, Key=key, Body=b"{}")
    with pytest.raises(ConflictError) as caught:
        mine.put(digest, folder)
    assert caught.value.code == "version_exists"
    assert emulator.client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"{}"


def test_what_a_killed_put_left_is_taken_up(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    """The same bytes at the keys, without a manifest, are no version and no obstacle."""
    digest, folder = source(tmp_path / "source", model=LARGE, empty=b"", small=b"x")
    for path in ("model", "empty", "small"):
        key = f"models/{digest[:2]}/{digest}/{path}"
        emulator.client.put_object(Bucket=bucket, Key=key, Body=(folder / path).read_bytes())
    assert not store().has(digest)
    store().put(digest, folder)
    assert (store().open(digest) / "model").read_bytes() == LARGE


def test_four_writers_of_a_large_version(store: Callable[..., S3ArtifactStore], tmp_path: Path) -> None:
    """Four stores put the same parts at once: all succeed, the version is whole."""
    digest, folder = source(tmp_path / "source", model=LARGE)
    failures: list[Exception] = []

    def put(each: S3ArtifactStore) -> None:
        try:
            each.put(digest, folder)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(store(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert (store().open(digest) / "model").read_bytes() == LARGE


def test_a_large_file_that_is_not_its_manifest_leaves_no_parts(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    """Longer, shorter or other bytes than the manifest says: manifest_invalid before anything is completed."""
    mine = store()
    digest, folder = source(tmp_path / "source", model=LARGE)
    for wrong in (LARGE[:-1] + b"?", LARGE[:-1], LARGE + b"more" * MIB):
        (folder / "model").write_bytes(wrong)
        with pytest.raises(PublishError) as caught:
            mine.put(digest, folder)
        assert caught.value.code == "manifest_invalid"
        assert emulator.keys(bucket) == {}
        assert "Uploads" not in emulator.client.list_multipart_uploads(Bucket=bucket)


def _rewritten(emulator: Emulator, bucket: str, key: str, content: bytes | None) -> None:
    if content is None:
        emulator.client.delete_object(Bucket=bucket, Key=key)
    else:
        emulator.client.put_object(Bucket=bucket, Key=key, Body=content)


@pytest.mark.parametrize("path", ["model", "small", "empty", "manifest.json"])
@pytest.mark.parametrize("wrong", ["other", "short", "long", "absent"])
def test_wrong_objects_never_become_a_version(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path, path: str, wrong: str
) -> None:
    """F9 P5: an object that was altered, cut, lengthened or removed: model_not_ready (version_not_found without a
    manifest), and nothing of it in the cache."""
    mine = store()
    digest, folder = source(tmp_path / "source", model=LARGE if path == "model" else b"w", small=b"xyz", empty=b"")
    mine.put(digest, folder)
    content = (folder / path).read_bytes()
    spoilt = {"other": content[:-1] + b"?", "short": content[:-1], "long": content + b"?", "absent": None}[wrong]
    if spoilt == content:
        return  # an empty file cannot be shorter
    _rewritten(emulator, bucket, f"models/{digest[:2]}/{digest}/{path}", spoilt)
    if path == "empty" and wrong in ("other", "long", "absent"):
        assert (mine.open(digest) / "empty").read_bytes() == b""  # it is never asked for
        return
    with pytest.raises(ModelyardError) as caught:
        mine.open(digest)
    absent = (path, wrong) == ("manifest.json", "absent")
    assert caught.value.code == ("version_not_found" if absent else "model_not_ready")
    assert list(tmp_path.glob("cache-*/??/*")) == []
    assert list(tmp_path.glob("cache-*/.incoming/*")) == []
    assert list(tmp_path.glob("cache-*/.locks/*.*")) == []


def test_a_hostile_manifest_stays_in_the_bucket(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, bucket: str, tmp_path: Path
) -> None:
    """S9: a manifest whose paths lead out of the folder is refused, whoever wrote it there."""
    entry = FileEntry("../../outside", hashlib.sha256(b"x").hexdigest(), 1)
    hostile = msgspec.structs.replace(manifest(), files=(entry,))
    digest = hostile.digest()
    key = f"models/{digest[:2]}/{digest}/manifest.json"
    emulator.client.put_object(Bucket=bucket, Key=key, Body=msgspec.json.encode(hostile))
    with pytest.raises(UnavailableError) as caught:
        store().open(digest)
    assert caught.value.code == "model_not_ready"
    assert list(tmp_path.rglob("outside")) == []


ALONE = """
import json, resource, sys
from pathlib import Path
from modelyard.core.clock import SystemClock
from modelyard.core.settings import ArtifactsSettings
from modelyard.storage.file.cache import ArtifactCache
from modelyard.storage.s3.store import S3ArtifactStore

work, settings, cache, digest, folder = sys.argv[1:]
given = ArtifactsSettings.model_validate_json(settings)
store = S3ArtifactStore(given, ArtifactCache(Path(cache), given.cache_bytes, 60), SystemClock())
if work != "warm":
    store.has("0" * 64)  # imports, and a connection
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put(digest, Path(folder)) if work == "put" else store.open(digest)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"grown_bytes": grown * 1024, "vendor": "boto3" in sys.modules}))
"""
"""The store in a process of its own, which says how much its memory grew at most, and whether it imported boto3."""


def test_a_version_is_never_whole_in_memory(emulator: Emulator, bucket: str, tmp_path: Path) -> None:
    """96 MiB up, and down, with two connections and parts of five MiB: the process grows by less than 40 MiB. From a
    warm cache the vendor's library is not even imported."""
    digest, folder = source(tmp_path / "source", model=random.Random(1).randbytes(96 * MIB))
    settings = emulator.settings(bucket, connections=2).model_dump_json()
    said: dict[str, dict[str, Any]] = {}
    for work in ("put", "open", "warm"):
        arguments = [sys.executable, "-c", ALONE, work, settings, tmp_path / "cache", digest, folder]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        said[work] = json.loads(done.stdout)
    assert said["put"]["grown_bytes"] < 40 * MIB, said
    assert said["open"]["grown_bytes"] < 40 * MIB, said
    assert (said["put"]["vendor"], said["warm"]["vendor"]) == (True, False)


def test_a_path_too_long_for_a_key_is_refused(store: Callable[..., S3ArtifactStore], tmp_path: Path) -> None:
    """A bucket's keys have 1024 bytes; the refusal names the file."""
    folder = tmp_path / "source"
    path = "/".join(["d" * 200] * 5)
    digest, _ = source(folder, **{path: b"x"})
    with pytest.raises(PublishError) as caught:
        store().put(digest, folder)
    assert caught.value.detail["field"] == path


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "s3://"},
        {"url": "https://bucket.s3.amazonaws.com"},
        {"url": "s3://Bucket/models"},
        {"url": "s3://bucket/../models"},
        {"url": "s3://bucket/models?x=1"},
        {"endpoint_url": "https://user:password@host"},
        {"endpoint_url": "ftp://host"},
        {"encryption": "AES256", "kms_key_id": "alias/models"},
        {"part_bytes": 1},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any]) -> None:
    """Addresses that are no bucket's, passwords in addresses, keys without KMS, parts below the service's least."""
    with pytest.raises(ValidationError):
        ArtifactsSettings(**wrong)


def test_plain_http_to_another_machine_is_refused(
    store: Callable[..., S3ArtifactStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """STORE-1: models travel encrypted, whoever names the endpoint; a loopback is the exception."""
    with pytest.raises(SettingsError) as caught:
        store(endpoint_url="http://192.0.2.1")
    assert caught.value.detail["field"] == "artifacts.endpoint_url"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1")
    with pytest.raises(UnavailableError) as refused:
        store(endpoint_url=None).has("0" * 64)
    assert "plain HTTP" in refused.value.message


def test_the_extra_is_named_when_it_is_missing(
    store: Callable[..., S3ArtifactStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without boto3 the start is refused, and says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError) as caught:
        store()
    assert "modelyard[aws]" in caught.value.message


def test_account_numbers_are_not_shown() -> None:
    """Many a bucket is named after its account."""
    assert Location.parse("s3://models-123456789012-eu/yard/").shown() == "s3://models-…-eu/yard"
