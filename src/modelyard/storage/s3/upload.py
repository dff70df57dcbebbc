"""One file into the bucket: read once, hashed on the way, sent in parts side by side, completed once."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from modelyard.models.manifest import FileEntry
from modelyard.storage.file.checked import check_content, opened
from modelyard.storage.s3.objects import Objects
from modelyard.storage.s3.refusals import WrongLengthError, written_meanwhile, written_otherwise
from modelyard.storage.s3.retry import Retry

MOST_PARTS = 10_000
"""S3's bound."""


class Upload:
    """Uploads of one `put`: `connections` parts at once, so about that many times `part_bytes` in memory."""

    def __init__(self, objects: Objects, part_bytes: int, connections: int, retry: Retry) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._connections = connections
        self._retry = retry

    def file(self, digest: str, folder: Path, entry: FileEntry) -> None:
        """Writes one file of a version, or finds the same bytes written already.

        PublishError("manifest_invalid") if the file is not what the manifest says: then nothing is completed.
        ConflictError("version_exists") if other bytes lie there; UnavailableError("store_unavailable").
        """
        key = self._objects.location.key(digest, entry.path)
        with open(opened(folder / entry.path, entry), "rb") as file:
            if entry.size_bytes <= self._part_bytes:
                content = file.read(entry.size_bytes + 1)
                check_content(entry, len(content), hashlib.sha256(content).hexdigest())
                written = self._objects.put(key, content, self._retry)
            else:
                written = self._in_parts(key, file, entry)
        if not written:
            self._check_same(digest, key, entry)

    def _in_parts(self, key: str, file: BinaryIO, entry: FileEntry) -> bool:
        upload = self._objects.begin(key, self._retry)
        try:
            with ThreadPoolExecutor(self._connections, "upload") as pool:
                try:
                    parts = self._send(pool, key, upload, file, entry)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            written = self._objects.complete(key, upload, parts, self._retry)
        except BaseException:
            self._objects.abort(key, upload)
            raise
        if not written:
            self._objects.abort(key, upload)
        return written

    def _send(
        self, pool: ThreadPoolExecutor, key: str, upload: str, file: BinaryIO, entry: FileEntry
    ) -> list[dict[str, Any]]:
        """Sends all parts, then holds what was sent to the manifest; nothing is an object before it is completed."""
        seen, size_bytes = hashlib.sha256(), 0
        under_way: deque[Future[dict[str, Any]]] = deque()
        parts: list[dict[str, Any]] = []
        for number, content in enumerate(_pieces(file, self._size_of_parts(entry)), 1):
            seen.update(content)
            size_bytes += len(content)
            if size_bytes > entry.size_bytes:
                break
            under_way.append(pool.submit(self._objects.put_part, key, upload, number, content, self._retry))
            if len(under_way) > self._connections:
                parts.append(under_way.popleft().result())
        check_content(entry, size_bytes, seen.hexdigest())
        return parts + [part.result() for part in under_way]

    def _size_of_parts(self, entry: FileEntry) -> int:
        return max(self._part_bytes, -(-entry.size_bytes // MOST_PARTS))

    def _check_same(self, digest: str, key: str, entry: FileEntry) -> None:
        """Reads what lies at the key: the same bytes are as good as ours. Slow, and rare: a publish that was killed,
        or two at once."""
        if not self._objects.exists(key, self._retry):
            raise written_meanwhile(self._objects.location)
        seen = hashlib.sha256()
        try:
            if entry.size_bytes:
                self._objects.read_range(
                    key, 0, entry.size_bytes, entry.size_bytes, lambda _at, block: seen.update(block), self._retry
                )
            elif self._objects.read(key, 0, self._retry) is None:
                raise WrongLengthError("no such bytes")
        except WrongLengthError as error:
            raise written_otherwise(digest, entry, error.got) from None
        if seen.hexdigest() != entry.sha256:
            raise written_otherwise(digest, entry, seen.hexdigest())


def _pieces(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while piece := file.read(size_bytes):
        yield piece
