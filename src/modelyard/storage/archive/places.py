"""Where archived files lie: a folder, or a bucket. A file is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import ArtifactsSettings

RETRY_AFTER_S = 5.0
INSTALL = "pip install 'modelyard[archive]'"
PARTIAL, WHOLE = ".partial", ".parquet"
"""How the names of files end: one that is being written, which nobody reads, and one that is there."""


class Place(Protocol):
    """Files by name, `day=…/endpoint=…/part-….parquet`; UnavailableError("store_unavailable")."""

    def names(self, folder: str = "", kind: str = WHOLE) -> list[str]:
        """Names of all files of a kind below a folder, sorted."""

    def read(self, name: str) -> bytes:
        """A file's bytes."""

    def write(self, name: str, content: bytes, still_alone: Callable[[], None]) -> None:
        """In place of what was there; durable, and whole for whoever reads beside it. `still_alone` is called when the
        content is safe under another name (PARTIAL); where it raises, or where that name is gone afterwards, nothing
        becomes of it."""

    def remove(self, name: str) -> None:
        """Away with it, if it is there."""

    def dataset(self) -> tuple[Any, str]:
        """PyArrow's file system and the path in it, for reading."""


def open_place(url: str, settings: ArtifactsSettings) -> Place:
    """The place that `retention.archive_url` names; SettingsError("setting_invalid") without the extra."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise SettingsError(
            "setting_invalid", f"An archive needs an extra: {INSTALL}.", field="retention.archive_url",
            expected="modelyard[archive] installed, or no archive",
        ) from None  # fmt: skip
    parts = urlsplit(url)
    if ".." in parts.path.split("/"):
        raise SettingsError(
            "setting_invalid", "An archive's place has no `..` in it.", field="retention.archive_url",
            expected="an absolute path, or s3://bucket/prefix",
        )  # fmt: skip
    if parts.scheme == "s3":
        return BucketPlace(f"{parts.netloc}{parts.path}".strip("/"), settings)
    return FolderPlace(Path(parts.path if parts.scheme == "file" else url))


class FolderPlace:
    """A folder, private (0700)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, folder: str = "", kind: str = WHOLE) -> list[str]:
        """Names of all files of a kind below a folder."""
        found = (self._root / folder).rglob(f"*{kind}")
        return sorted(str(path.relative_to(self._root)) for path in found)

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        with _in_our_words():
            return (self._root / name).read_bytes()

    def write(self, name: str, content: bytes, still_alone: Callable[[], None]) -> None:
        """Beside its name first, then under it."""
        path = self._root / name
        partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
        with _in_our_words():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                still_alone()
                with _told_why(still_alone):
                    partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            for folder in (path.parent, path.parent.parent, self._root):
                _sync(folder)

    def remove(self, name: str) -> None:
        """Away with it."""
        with _in_our_words():
            (self._root / name).unlink(missing_ok=True)
        _sync((self._root / name).parent)

    def dataset(self) -> tuple[Any, str]:
        """See Place."""
        from pyarrow import fs

        return fs.LocalFileSystem(), str(self._root.absolute())


class BucketPlace:
    """A prefix in a bucket; encrypted as the bucket does it by itself. Region and endpoint are those of `artifacts`."""

    def __init__(self, root: str, settings: ArtifactsSettings) -> None:
        self._root = root
        self._settings = settings
        self._made: Any = None
        self._pid = 0

    def names(self, folder: str = "", kind: str = WHOLE) -> list[str]:
        """Names of all objects of a kind below a folder."""
        from pyarrow import fs

        chosen = fs.FileSelector(f"{self._root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        with _in_our_words():
            found = self._fs.get_file_info(chosen)
        return sorted(one.path.removeprefix(f"{self._root}/") for one in found if one.path.endswith(kind))

    def read(self, name: str) -> bytes:
        """An object's bytes."""
        with _in_our_words(), self._fs.open_input_stream(f"{self._root}/{name}") as file:
            return bytes(file.read())

    def write(self, name: str, content: bytes, still_alone: Callable[[], None]) -> None:
        """S3 shows an object when all of it is there; an upload that began cannot be taken back, a copy can be refused
        by its source."""
        final = f"{self._root}/{name}"
        partial = f"{final.rpartition('/')[0]}/.{secrets.token_hex(8)}{PARTIAL}"
        with _in_our_words():
            try:
                with self._fs.open_output_stream(partial) as file:
                    file.write(content)
                still_alone()
                with _told_why(still_alone):
                    self._fs.copy_file(partial, final)
            finally:
                self._delete(partial)

    def remove(self, name: str) -> None:
        """Away with it; a bucket with versions keeps the old one until its lifecycle ends it."""
        with _in_our_words():
            self._delete(f"{self._root}/{name}")

    def _delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.delete_file(path)

    def dataset(self) -> tuple[Any, str]:
        """See Place."""
        return self._fs, self._root

    @property
    def _fs(self) -> Any:
        if self._pid != os.getpid():
            self._made, self._pid = self._open(), os.getpid()
        return self._made

    def _open(self) -> Any:
        from pyarrow import fs

        more: dict[str, Any] = {} if self._settings.region is None else {"region": self._settings.region}
        endpoint = self._settings.endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            parts = urlsplit(endpoint)
            more |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
        return fs.S3FileSystem(
            connect_timeout=self._settings.connect_timeout_s,
            request_timeout=self._settings.read_timeout_s,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=self._settings.attempts),
            background_writes=False,
            **more,
        )


@contextmanager
def _told_why(still_alone: Callable[[], None]) -> Iterator[None]:
    """What was written may be gone: who has the lease now takes it away."""
    try:
        yield
    except OSError:
        still_alone()
        raise


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What a file system refuses may hold hosts and accounts."""
    try:
        yield
    except OSError as error:
        reason = error.strerror if error.errno and error.strerror else type(error).__name__
        raise UnavailableError(
            "store_unavailable", f"The archive is not available: {reason}.", retry_after_s=RETRY_AFTER_S,
            field="retention.archive_url",
        ) from error  # fmt: skip


def _sync(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
