"""The cache of versions: whole or fetched again, bounded, what is in use stays, several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import NotFoundError, SettingsError, UnavailableError
from modelyard.models.manifest import Manifest
from modelyard.storage.file.cache import ArtifactCache
from modelyard.storage.refusals import artifact_not_found
from modelyard.testing import version_folder

KIB = 1024
SIZE = 100 * KIB
PROCESS_TIMEOUT_S = 60.0


class Shelf:
    """An origin: versions in a folder, with a count of what was fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self.during: Callable[[], object] = lambda: None

    def make(self, name: str, size_bytes: int = SIZE) -> str:
        """A version with two files; its digest."""
        content = random.Random(name).randbytes(size_bytes)
        made = version_folder(self.folder / name, {"model": content, "more/words": name.encode()})
        (self.folder / name).rename(self.folder / made.digest())
        return made.digest()

    def manifest(self, digest: str) -> bytes:
        if not (self.folder / digest).is_dir():
            raise artifact_not_found(digest)
        return (self.folder / digest / "manifest.json").read_bytes()

    def fill(self, digest: str, manifest: Manifest, folder: Path) -> None:
        self.fetched.append(digest)
        with (self.folder / "fetched").open("a") as file:
            file.write(f"{digest}\n")
        self.during()
        for entry in manifest.files:
            (folder / entry.path).write_bytes((self.folder / digest / entry.path).read_bytes())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty origin."""
    (tmp_path / "shelf").mkdir()
    return Shelf(tmp_path / "shelf")


def cache_in(folder: Path, versions: float = 100) -> ArtifactCache:
    """A cache that holds about so many versions."""
    return ArtifactCache(folder / "cache", int(versions * (SIZE + 2 * KIB)), 30.0)


def held(folder: Path) -> set[str]:
    """The digests in the cache."""
    return {path.name for path in (folder / "cache").glob("??/*")}


def used_bytes(folder: Path) -> int:
    """What the cache's folder holds, on its way in included."""
    return sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())


def test_a_version_is_fetched_once(tmp_path: Path, shelf: Shelf) -> None:
    """The second use, and the use by another cache on the same folder, fetch nothing."""
    digest = shelf.make("a")
    cache = cache_in(tmp_path)
    place = cache.open(digest, shelf)
    assert (place / "more/words").read_bytes() == b"a"
    assert cache.open(digest, shelf) == place == cache_in(tmp_path).open(digest, shelf)
    assert shelf.fetched == [digest]


@pytest.mark.parametrize("path", ["model", "more/words", "manifest.json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "gone", "link"])
def test_a_damaged_copy_is_fetched_again(tmp_path: Path, shelf: Shelf, path: str, damage: str) -> None:
    """P5: by hash, at the next use: one bit, cut, lengthened, removed, or a link; also while another holds it."""
    digest = shelf.make("a")
    holder = cache_in(tmp_path)
    place = holder.open(digest, shelf)
    file = place / path
    content = file.read_bytes()
    file.unlink()
    if damage == "link":
        file.symlink_to(shelf.folder / digest / path)
    elif damage != "gone":
        spoilt = {"bit": bytes([content[0] ^ 1]) + content[1:], "cut": content[:-1], "longer": content + b"?"}[damage]
        file.write_bytes(spoilt)
    again = cache_in(tmp_path).open(digest, shelf)
    assert shelf.fetched == [digest, digest]
    assert (again / path).read_bytes() == content
    assert not (again / path).is_symlink()
    assert os.stat(again / path).st_mode & 0o777 == 0o400
    assert list((tmp_path / "cache" / ".incoming").iterdir()) == []


def test_the_least_recently_used_goes_first(tmp_path: Path, shelf: Shelf) -> None:
    """Room for three: of those that are not in use, the one whose use ended longest ago leaves."""
    a, b, c, d = (shelf.make(name) for name in "abcd")
    cache = cache_in(tmp_path, 3)
    for number, digest in enumerate((a, b, c)):
        cache.open(digest, shelf)
        cache.release(digest)
        stamp_uses(tmp_path, digest, number)
    cache.open(a, shelf)
    cache.release(a)  # used again, so b is the oldest
    cache.open(d, shelf)
    assert held(tmp_path) == {a, c, d}
    assert used_bytes(tmp_path) <= 3 * (SIZE + 2 * KIB)


def stamp_uses(folder: Path, digest: str, at_s: float) -> None:
    """The last use was then."""
    os.utime(folder / "cache" / ".locks" / f"{digest}.use", (at_s, at_s))


def test_a_version_in_use_is_never_removed(tmp_path: Path, shelf: Shelf) -> None:
    """Opened twice and released once is in use; so is what another cache opened. Without room the next one is
    refused, names the setting, and leaves nothing; after the release it fits."""
    a, b, c = (shelf.make(name) for name in "abc")
    one, two = cache_in(tmp_path, 2), cache_in(tmp_path, 2)
    one.open(a, shelf)
    one.open(a, shelf)
    one.release(a)
    two.open(b, shelf)
    for _ in range(2):
        with pytest.raises(UnavailableError) as caught:
            one.open(c, shelf)
        assert (caught.value.code, caught.value.detail["field"]) == ("store_unavailable", "artifacts.cache_bytes")
        assert held(tmp_path) == {a, b}
    assert list((tmp_path / "cache" / ".incoming").iterdir()) == []
    assert sorted(path.suffix for path in (tmp_path / "cache" / ".locks").glob("*.*")) == [".use", ".use"]
    one.release(a)
    one.open(c, shelf)
    assert held(tmp_path) == {b, c}


def test_a_version_larger_than_the_cache_removes_nothing_in_use(tmp_path: Path, shelf: Shelf) -> None:
    """It is refused before a byte is fetched."""
    large = shelf.make("large", 10 * SIZE)
    with pytest.raises(UnavailableError):
        cache_in(tmp_path, 2).open(large, shelf)
    assert shelf.fetched == []


def test_what_is_on_its_way_counts(tmp_path: Path, shelf: Shelf) -> None:
    """Two fetches at once do not take the same room: the second sees the first's files with their full size."""
    a, b = shelf.make("a"), shelf.make("b")
    cache, refused = cache_in(tmp_path, 1), []

    def meanwhile() -> None:
        shelf.during = lambda: None
        with pytest.raises(UnavailableError) as caught:
            cache_in_same(tmp_path).open(b, shelf)
        refused.append(caught.value.detail["reason"])

    shelf.during = meanwhile
    cache.open(a, shelf)
    assert refused == ["cache_full"]
    assert held(tmp_path) == {a}


def cache_in_same(folder: Path) -> ArtifactCache:
    """Another process's cache with the same bound."""
    return cache_in(folder, 1)


def test_an_unknown_version_leaves_nothing(tmp_path: Path, shelf: Shelf) -> None:
    """Not a folder, not a lock."""
    with pytest.raises(NotFoundError):
        cache_in(tmp_path).open("0" * 64, shelf)
    assert held(tmp_path) == set()
    assert list((tmp_path / "cache" / ".locks").glob("*.*")) == []


def test_an_origin_that_fails_leaves_nothing(tmp_path: Path, shelf: Shelf) -> None:
    """What it raises is passed on, and the next try starts afresh."""
    digest = shelf.make("a")

    def fail() -> None:
        shelf.during = lambda: None
        raise UnavailableError("store_unavailable", "Away.")

    shelf.during = fail
    cache = cache_in(tmp_path)
    with pytest.raises(UnavailableError):
        cache.open(digest, shelf)
    assert used_bytes(tmp_path) == 0
    cache.open(digest, shelf)


def test_a_process_killed_while_it_fetches(tmp_path: Path, shelf: Shelf) -> None:
    """Its locks go with it, the next start sweeps its files, and the version is fetched whole."""
    digest = shelf.make("a")
    child = os.fork()
    if child == 0:
        shelf.during = lambda: os._exit(9)
        try:
            cache_in(tmp_path).open(digest, shelf)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert used_bytes(tmp_path) > SIZE
    cache = cache_in(tmp_path)
    assert used_bytes(tmp_path) == 0
    assert (cache.open(digest, shelf) / "model").stat().st_size == SIZE


def test_a_full_disk_is_said(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """store_unavailable with the system's word, nothing left."""
    digest = shelf.make("a")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError) as caught:
        cache_in(tmp_path).open(digest, shelf)
    assert "No space left on device" in caught.value.message
    assert held(tmp_path) == set()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A file where the folder should be is a settings error."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(SettingsError):
        cache_in(tmp_path)


def open_at_once(barrier: Any, answers: Any, folder: Path, digests: list[str], versions: float, seed: int) -> None:
    """A process that opens, checks and releases versions in an order of its own."""
    shelf, cache = Shelf(folder / "shelf"), cache_in(folder, versions)
    order = random.Random(seed).choices(digests, k=30)
    barrier.wait(PROCESS_TIMEOUT_S)
    wrong = 0
    for digest in order:
        place = cache.open(digest, shelf)
        expected = (folder / "shelf" / digest / "model").read_bytes()
        wrong += (place / "model").read_bytes() != expected
        cache.release(digest)
    answers.put(wrong)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., list[int]]]:
    """Runs `open_at_once` in so many processes; what each found wrong."""
    context = multiprocessing.get_context("spawn")

    def run(count: int, digests: list[str], versions: float) -> list[int]:
        barrier, answers = context.Barrier(count), context.Queue()
        started = [
            context.Process(target=open_at_once, args=(barrier, answers, tmp_path, digests, versions, seed))
            for seed in range(count)
        ]
        for process in started:
            process.start()
        found = [answers.get(timeout=PROCESS_TIMEOUT_S) for _ in started]
        for process in started:
            process.join(PROCESS_TIMEOUT_S)
            assert process.exitcode == 0
        answers.close()
        answers.join_thread()
        return found

    return run


def test_processes_share_one_fetch(tmp_path: Path, shelf: Shelf, processes: Callable[..., list[int]]) -> None:
    """Three processes that want the same version at the same moment fetch it once."""
    digest = shelf.make("a", 5 * SIZE)
    assert processes(3, [digest], 100) == [0, 0, 0]
    assert (shelf.folder / "fetched").read_text().split() == [digest]


def test_processes_in_a_small_cache(tmp_path: Path, shelf: Shelf, processes: Callable[..., list[int]]) -> None:
    """Three processes over seven versions with room for three: whatever is removed meanwhile, each reads whole files
    while it uses them, and the bound holds in the end."""
    digests = [shelf.make(name) for name in "abcdefg"]
    assert processes(3, digests, 3) == [0, 0, 0]
    assert len((shelf.folder / "fetched").read_text().split()) > 7
    assert used_bytes(tmp_path) <= 3 * (SIZE + 2 * KIB)
    assert list((tmp_path / "cache" / ".incoming").iterdir()) == []


class Told:
    """Steps as they are told, with their bytes."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []

    def step(self, name: str, size_bytes: int | None = None) -> AbstractContextManager[None]:
        self.steps.append((name, size_bytes))
        return nullcontext()


def test_a_load_hears_what_the_cache_does(tmp_path: Path, shelf: Shelf) -> None:
    """PERF-3: a fetch is a download of the version's bytes; a copy that is there is hashed, and nothing is fetched."""
    digest, cache = shelf.make("one"), cache_in(tmp_path)
    size = SIZE + len("one")
    first, second = Told(), Told()
    cache.open(digest, shelf, first)
    assert first.steps == [("resolve", None), ("download", size)]
    cache.open(digest, shelf, second)
    assert second.steps == [("resolve", None), ("verify", size)]
