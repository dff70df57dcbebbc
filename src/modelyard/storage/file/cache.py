"""Copies of versions whose files live elsewhere: `<root>/<digest[:2]>/<digest>/`, the least recently used go first.

For each version two locks, both flock(2), both gone with the process that holds them:

* `.locks/<digest>.use`, shared: it is in use here. Removing a version needs it alone, so none is removed in use; its
  time of change says when it was used last.
* `.locks/<digest>.fetch`, alone: it is being fetched. Whoever waits for it finds the version there.

`.locks/room` is held while room is made and taken: files on their way in have their full size from the beginning, so
that what is counted is what will be.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from modelyard.core.errors import PublishError, SettingsError, UnavailableError
from modelyard.core.events import Event
from modelyard.models.loads.hashed import HASHED
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.ports import UNTOLD, Steps
from modelyard.storage.file.checked import FILE_MODE, FOLDER_MODE, MANIFEST, parsed_manifest
from modelyard.storage.file.incoming import Incoming, finish, private
from modelyard.storage.file.locks import lock, locked, try_lock
from modelyard.telemetry.logs import emit

LOCKS = ".locks"
ROOM_TIMEOUT_S = 60.0
"""Room is made by renaming and deleting; nothing is fetched meanwhile."""


class Origin(Protocol):
    """Where the files come from."""

    def manifest(self, digest: str) -> bytes:
        """The version's manifest as it was published; NotFoundError("version_not_found")."""

    def fill(self, digest: str, manifest: Manifest, folder: Path) -> None:
        """Writes the files, which lie in `folder` with their sizes, and checks their hashes;
        UnavailableError("model_not_ready" | "store_unavailable")."""


class ArtifactCache:
    """Copies of at most `most_bytes` together, counting those on their way in. Several processes may share it.

    `timeout_s` bounds the wait for another process that fetches the same version.
    SettingsError("data_folder_unusable").
    """

    def __init__(self, root: Path, most_bytes: int, timeout_s: float) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s
        self._incoming = Incoming(root)
        self._pins: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        try:
            self._incoming.prepare()
            (root / LOCKS).mkdir(mode=FOLDER_MODE, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                "data_folder_unusable", f"The artifact cache cannot be used: {error.strerror}.", field="data"
            ) from error

    def open(self, digest: str, origin: Origin, steps: Steps = UNTOLD) -> Path:
        """The version's folder, every file of the published hash, fetched from `origin` if it is not here or broken.
        It stays until `release` was called as often as this, or the process ends.

        UnavailableError("store_unavailable") if there is no room, and what `origin` raises; then nothing is left.
        """
        try:
            with steps.step("resolve"):
                pin = lock(self._of(digest, "use"), True, ROOM_TIMEOUT_S)
            try:
                os.utime(pin)
                if self._fault(digest, steps) is not None:
                    self._fetch(digest, origin, steps)
            except BaseException:
                os.close(pin)
                self._forget(digest)
                raise
        except OSError as error:
            raise UnavailableError(
                "store_unavailable", f"The artifact cache cannot be written: {error.strerror}.", retry_after_s=5.0
            ) from error
        with self._lock:
            self._pins.setdefault(digest, []).append(pin)
        return self._place(digest)

    def release(self, digest: str) -> None:
        """One use less; without any the version may be removed when room is needed."""
        with self._lock:
            pins = self._pins.get(digest, [])
            pin = pins.pop() if pins else None
        if pin is not None:
            os.utime(pin)
            os.close(pin)

    def _forget(self, digest: str) -> None:
        """Leaves no lock of a version that never came."""
        use = self._of(digest, "use")
        if not self._place(digest).exists() and (held := try_lock(use, False)) is not None:
            use.unlink(missing_ok=True)
            os.close(held)

    def _fetch(self, digest: str, origin: Origin, steps: Steps) -> None:
        with locked(self._of(digest, "fetch"), self._timeout_s, remove=True):
            if (fault := self._fault(digest, steps)) is None:
                return  # another process was quicker
            place = self._place(digest)
            if place.exists():
                emit(Event.ARTIFACT_DAMAGED, "warning", digest=digest, file=fault)
                self._incoming.discard(place)
            content = origin.manifest(digest)
            manifest = _manifest(digest, content)
            with self._incoming.folder() as temporary:
                with locked(self._root / LOCKS / "room", ROOM_TIMEOUT_S):
                    self._make_room(sum(entry.size_bytes for entry in manifest.files) + len(content))
                    _reserve(temporary, manifest, content)
                with steps.step("download", sum(entry.size_bytes for entry in manifest.files)):
                    origin.fill(digest, manifest, temporary)
                    _finish(temporary, manifest)
                self._incoming.move_in(temporary, place)
            emit(Event.ARTIFACT_FETCHED, digest=digest, size_bytes=_size(place))

    def _fault(self, digest: str, steps: Steps) -> str | None:
        """The first file that is not here as it was published, None if every byte is."""
        place = self._place(digest)
        if (place / MANIFEST).is_symlink():
            return MANIFEST
        try:
            manifest = _manifest(digest, (place / MANIFEST).read_bytes())
        except (FileNotFoundError, UnavailableError):
            return MANIFEST
        with steps.step("verify", sum(entry.size_bytes for entry in manifest.files)):
            return next((entry.path for entry in manifest.files if not _is_entry(place / entry.path, entry)), None)

    def _make_room(self, needed_bytes: int) -> None:
        """Removes what was used longest ago until so many bytes fit."""
        used = sum(_size(path) for path in self._folders()) + _size(self._incoming.place)
        for place in sorted(self._folders(), key=self._used_at):
            if used + needed_bytes <= self._most_bytes:
                return
            used -= self._remove(place)
        if used + needed_bytes > self._most_bytes:
            raise UnavailableError(
                "store_unavailable",
                f"The artifact cache has no room: {needed_bytes} bytes are needed, {max(self._most_bytes - used, 0)} "
                f"of {self._most_bytes} are not in use: raise artifacts.cache_bytes, or unload versions.",
                retry_after_s=30.0,
                field="artifacts.cache_bytes",
                reason="cache_full",
                expected=f"at least {used + needed_bytes} bytes",
                got=self._most_bytes,
            )

    def _remove(self, place: Path) -> int:
        """The bytes that are free then; 0 if the version is in use."""
        use = self._of(place.name, "use")
        held = try_lock(use, False)
        if held is None:
            return 0
        try:
            size = _size(place)
            self._incoming.discard(place)
            use.unlink(missing_ok=True)
        finally:
            os.close(held)
        emit(Event.ARTIFACT_REMOVED, digest=place.name, size_bytes=size)
        return size

    def _folders(self) -> Iterator[Path]:
        for shelf in self._root.iterdir():
            if not shelf.name.startswith("."):
                yield from shelf.iterdir()

    def _used_at(self, place: Path) -> float:
        try:
            return self._of(place.name, "use").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _place(self, digest: str) -> Path:
        return self._root / digest[:2] / digest

    def _of(self, digest: str, what: str) -> Path:
        return self._root / LOCKS / f"{digest}.{what}"


def _manifest(digest: str, content: bytes) -> Manifest:
    try:
        return parsed_manifest(digest, content)
    except PublishError as error:
        raise UnavailableError(
            "model_not_ready",
            f"The manifest of version content `{digest[:12]}` is not what was published.",
            retry_after_s=30.0,
            **error.detail,
        ) from None


def _is_entry(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    return HASHED.sha256(path) == entry.sha256


def _reserve(folder: Path, manifest: Manifest, content: bytes) -> None:
    """All files with their sizes; the manifest with its content."""
    for entry in manifest.files:
        target = folder / entry.path
        target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with open(target, "xb", opener=private) as file:
            file.truncate(entry.size_bytes)
    with open(folder / MANIFEST, "xb", opener=private) as file:
        file.write(content)
        finish(file)


def _finish(folder: Path, manifest: Manifest) -> None:
    for entry in manifest.files:
        handle = os.open(folder / entry.path, os.O_RDONLY)
        try:
            os.fchmod(handle, FILE_MODE)
            os.fsync(handle)
        finally:
            os.close(handle)
        HASHED.remember(folder / entry.path, entry.sha256)  # `fill` hashed what landed


def _size(folder: Path) -> int:
    """The bytes of all files below; those that go meanwhile are gone."""
    size = 0
    for inner, _folders, files in os.walk(folder):
        for name in files:
            try:
                size += Path(inner, name).lstat().st_size
            except FileNotFoundError:
                continue
    return size
