"""The object store away, cut off, silent, slow, busy or unwilling.

The service behind the wire is an emulator.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelyardError, NotFoundError, UnavailableError
from modelyard.storage.file.cache import ArtifactCache
from modelyard.storage.s3.store import S3ArtifactStore
from modelyard.testing import version_folder
from objectstore.answers import LISTED, SECRETS, answering, refusal
from objectstore.emulator import Emulator
from objectstore.wire import Fault, Wire, first, wired

MIB = 1024 * 1024
CONTENT = random.Random(3).randbytes(11 * MIB)
QUICK = {"connect_timeout_s": 0.5, "read_timeout_s": 0.5}


@pytest.fixture
def wire(emulator: Emulator) -> Iterator[Wire]:
    """A wire to the emulator."""
    with wired(emulator.port) as made:
        yield made


@pytest.fixture
def bucket(emulator: Emulator) -> str:
    """An empty bucket."""
    return emulator.bucket()


@pytest.fixture
def store(emulator: Emulator, bucket: str, tmp_path: Path) -> Callable[..., S3ArtifactStore]:
    """Makes stores in the bucket, all with the same cache, each with an address and settings of its own."""

    def make(address: str, **settings: Any) -> S3ArtifactStore:
        given = emulator.settings(bucket, **{"endpoint_url": address, **QUICK, **settings})
        return S3ArtifactStore(given, ArtifactCache(tmp_path / "cache", given.cache_bytes, 30.0), SystemClock())

    return make


@pytest.fixture
def version(tmp_path: Path) -> tuple[str, Path]:
    """A version of 11 MiB: digest and folder."""
    folder = tmp_path / "source"
    folder.mkdir()
    return version_folder(folder, {"model": CONTENT}).digest(), folder


def left_in_the_cache(tmp_path: Path) -> list[str]:
    """Everything but the folders themselves."""
    return [str(path) for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "room"]


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_cut_download_goes_on_at_the_last_byte(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, wire: Wire, version: tuple[str, Path], how: str
) -> None:
    """F9: three answers cut in the middle: every byte of the version crosses the wire about once, later requests begin
    behind the last byte that came, and the version is whole."""
    digest, folder = version
    store(emulator.url).put(digest, folder)
    wire.plan = first(4, Fault(how, 2 * MIB), b"/model HTTP")
    place = store(wire.url, connections=1).open(digest)
    assert (place / "model").read_bytes() == CONTENT
    resumed = [start for start, _end in wire.ranges if start % (5 * MIB)]
    assert len(resumed) == 3 if how == "cut" else resumed  # a reset loses what was under way
    assert how == "reset" or wire.down_bytes < len(CONTENT) + 20_000  # heads, and the manifest


def test_a_wire_that_is_always_cut_ends_in_bounds(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, wire: Wire, version: tuple[str, Path], tmp_path: Path
) -> None:
    """F9: each range is tried as often as the setting says, then one sentence; nothing is left."""
    digest, folder = version
    store(emulator.url).put(digest, folder)
    wire.plan = lambda request: Fault("cut", 1000) if b"/model HTTP" in request else None
    with pytest.raises(UnavailableError) as caught:
        store(wire.url, attempts=3, connections=1).open(digest)
    assert (caught.value.code, caught.value.detail["reason"]) == ("store_unavailable", "unreachable")
    assert len(wire.ranges) <= 3 * 2  # the range that failed, and one that was ahead
    assert left_in_the_cache(tmp_path) == []


def test_a_silent_store_is_asked_again(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, wire: Wire, version: tuple[str, Path]
) -> None:
    """F9: silence in the middle of an answer ends after read_timeout_s, and the next answer goes on."""
    digest, folder = version
    store(emulator.url).put(digest, folder)
    wire.plan = first(2, Fault("silence", MIB), b"/model HTTP")
    assert (store(wire.url).open(digest) / "model").read_bytes() == CONTENT


@pytest.mark.parametrize("where", [b"/model HTTP", b"/manifest.json HTTP"])
def test_a_store_that_dribbles_runs_out_of_time(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, wire: Wire, tmp_path: Path, where: bytes
) -> None:
    """F9: a byte now and then keeps every read timeout away; timeout_s ends it all the same."""
    folder = tmp_path / "source"
    folder.mkdir()
    digest = version_folder(folder, {"model": CONTENT}, metrics={"words": "x" * 10_000}).digest()
    store(emulator.url).put(digest, folder)
    wire.plan = lambda request: Fault("drip", 5000) if where in request else None
    with pytest.raises(UnavailableError) as caught:
        store(wire.url, timeout_s=1.0).open(digest)
    assert caught.value.detail["reason"] == "too_slow"
    assert left_in_the_cache(tmp_path) == []


def test_a_cut_upload_is_sent_again(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, wire: Wire, version: tuple[str, Path], bucket: str
) -> None:
    """F9: parts and one-part objects whose request was cut are sent again, and the version is whole."""
    digest, folder = version
    wire.plan = first(3, Fault("cut", 100_000, up=True), b"PUT ")
    store(wire.url, read_timeout_s=10).put(digest, folder)
    assert (store(emulator.url).open(digest) / "model").read_bytes() == CONTENT
    assert "Uploads" not in emulator.client.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("where", [b"uploadId=", b"/manifest.json HTTP"], ids=["parts", "manifest"])
def test_a_lost_answer_to_the_last_request_is_no_conflict(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, wire: Wire, version: tuple[str, Path], where: bytes
) -> None:
    """F9: the write was done, its answer lost, the same request again finds the key taken: by itself."""
    digest, folder = version
    verb = b"POST" if where == b"uploadId=" else b"PUT"
    lost = first(1, Fault("cut", 0), where)
    wire.plan = lambda request: lost(request) if request.startswith(verb) else None
    made = store(wire.url)
    made.put(digest, folder)
    assert made.has(digest)
    assert (store(emulator.url).open(digest) / "model").read_bytes() == CONTENT


def closed_port() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_away_with_and_without_a_cached_version(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, version: tuple[str, Path], tmp_path: Path
) -> None:
    """F8 P11: what is cached and whole is served although nobody answers; what is not says that nobody does."""
    digest, folder = version
    away = store(closed_port(), attempts=2)
    for ask in (lambda: away.open(digest), lambda: away.has(digest), lambda: away.put(digest, folder)):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert (caught.value.code, caught.value.detail["reason"]) == ("store_unavailable", "unreachable")
        assert caught.value.retry_after_s
    assert left_in_the_cache(tmp_path) == []
    here = store(emulator.url)
    here.put(digest, folder)
    here.release(here.open(digest).name)
    assert (away.open(digest) / "model").read_bytes() == CONTENT


REFUSALS = {
    "NoSuchBucket": (404, "bucket_missing", "does not exist"),
    "AccessDenied": (403, "access_denied", "s3:ListBucket"),
    "KMS.DisabledException": (400, "access_denied", "KMS"),
    "InvalidAccessKeyId": (403, "no_credentials", "role"),
    "SignatureDoesNotMatch": (403, "no_credentials", "role"),
    "ExpiredToken": (400, "no_credentials", "role"),
    "RequestTimeTooSkewed": (403, "clock_wrong", "clock"),
    "AuthorizationHeaderMalformed": (400, "wrong_region", "artifacts.region"),
    "SlowDown": (503, "busy", "try again"),
    "InternalError": (500, "busy", "try again"),
    "SomethingNew": (400, "refused", "SomethingNew"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_refusals_are_one_sentence_of_ours(store: Callable[..., S3ArtifactStore], code: str) -> None:
    """F9: what, where and what to do; no account, no key, no host, nothing of the store's own text."""
    status, reason, word = REFUSALS[code]
    with answering([(status, refusal(code))]) as server:
        made = store(server.url, url="s3://models-123456789012/yard", attempts=2)
        with pytest.raises(UnavailableError) as caught:
            made.has("0" * 64)
        assert server.asked == (2 if reason == "busy" else 1)
    error = caught.value
    assert (error.code, error.detail["reason"]) == ("store_unavailable", reason)
    assert word in error.message
    assert "s3://models-…/yard" in error.message
    assert error.message.count(". ") == 0
    assert error.message.endswith(".")
    said = f"{error.message} {error.detail}"
    assert not [secret for secret in (*SECRETS, "127.0.0.1") if secret in said]
    assert error.__cause__ is None


@pytest.mark.parametrize("body", [b"", b"<html>proxy error</html>", b"\x00\xff" * 100, b"<Error><Code>"])
@pytest.mark.parametrize("status", [200, 302, 403, 404, 500, 502])
def test_answers_that_are_none(store: Callable[..., S3ArtifactStore], status: int, body: bytes) -> None:
    """F9: whatever a proxy between us and the store says: a refusal of ours, never an exception of a library's, and
    never "it is there"."""
    with answering([(status, body)]) as server:
        made = store(server.url, attempts=2)
        for ask in (lambda: made.has("0" * 64), lambda: made.open("0" * 64)):
            with pytest.raises(ModelyardError) as caught:  # "not there" is one of them
                _absent(ask())
            assert caught.value.code in ("store_unavailable", "model_not_ready", "version_not_found")


def _absent(said: object) -> None:
    """Raises if the store said that there is nothing."""
    if said is False:
        raise NotFoundError("version_not_found", "It is not there.")


def test_a_busy_store_is_asked_again(store: Callable[..., S3ArtifactStore]) -> None:
    """F9: two refusals for the rush, then the answer: three requests, no error."""
    with answering([(503, refusal("SlowDown")), (500, refusal("InternalError")), (200, LISTED)]) as server:
        assert store(server.url).has("0" * 64) is False
        assert server.asked == 3


def test_no_credentials(store: Callable[..., S3ArtifactStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment, no file, no role: said at once, without a request."""
    with answering([(200, LISTED)]) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with pytest.raises(UnavailableError) as caught:
            store(server.url).has("0" * 64)
        assert caught.value.detail["reason"] == "no_credentials"
        monkeypatch.setenv("AWS_PROFILE", "absent")
        with pytest.raises(UnavailableError) as caught:
            store(server.url).has("0" * 64)
        assert caught.value.detail["reason"] == "no_credentials"
        assert server.asked == 0


def test_a_bucket_that_is_missing_on_the_emulator(
    store: Callable[..., S3ArtifactStore], emulator: Emulator, version: tuple[str, Path]
) -> None:
    """The emulator words it as the service does."""
    made = store(emulator.url, url="s3://no-such-bucket-here/x")
    for ask in (lambda: made.put(*version), lambda: made.open(version[0])):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert caught.value.detail["reason"] == "bucket_missing"
