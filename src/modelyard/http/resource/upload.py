"""A version on its way in: streamed to a private temporary folder, bounded, never whole in memory."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from modelyard.core.errors import InvalidRequestError, MediaTypeError, UnavailableError
from modelyard.core.settings import Settings
from modelyard.http.resource.strict import body_too_large
from modelyard.http.services import Published, Services
from modelyard.models.archive import extract_tar

FILE_TYPE = "application/octet-stream"
FOLDER_TYPE = "application/x-tar"
FILENAME_HEADER = "x-modelyard-filename"
DEFAULT_FILENAME = "model.bin"
WRITE_BYTES = 1024 * 1024
"""So much is gathered before it is written, in a thread."""

_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,126}[A-Za-z0-9]|[A-Za-z0-9]")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Upload:
    """A body that has come whole. `is_folder`: it is a tar archive, not the model's one file. `scratch` is a private
    folder that goes away with the request."""

    path: Path
    is_folder: bool
    scratch: Path


@asynccontextmanager
async def receive_upload(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """The request's body as a file. Raises MediaTypeError, TooLargeError (before reading, where the length is told),
    InvalidRequestError("name_invalid"), UnavailableError("store_unavailable") for a full disk."""
    is_folder = _content_type(request) == FOLDER_TYPE
    filename = "upload.tar" if is_folder else _filename(request)
    _check_told_length(request, settings.models.max_version_bytes)
    scratch = await run_in_threadpool(_scratch, settings.data)
    try:
        path = scratch / filename
        await _receive(request, path, settings.models.max_version_bytes)
        yield Upload(path, is_folder, scratch)
    finally:
        await run_in_threadpool(shutil.rmtree, scratch, True)


def publish_upload(services: Services, upload: Upload, model: str, version: str | None) -> Published:
    """Publishes what came; runs in a thread, for as long as the publish check takes."""
    source = upload.path
    if upload.is_folder:
        source = _unpacked(upload, services.settings.models.max_version_bytes)
    return services.publisher.publish(model, source, version)


def _unpacked(upload: Upload, bound_bytes: int) -> Path:
    folder = upload.scratch / "folder"
    try:
        folder.mkdir(mode=0o700)
        with upload.path.open("rb") as archive:
            extract_tar(archive, folder, bound_bytes)
    except OSError as error:
        raise _disk(error) from None
    return folder


def _scratch(data: Path) -> Path:
    parent = data / "uploads"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise _disk(error) from None


async def _receive(request: Request, path: Path, bound_bytes: int) -> None:
    size_bytes = 0
    pending = bytearray()
    with await run_in_threadpool(path.open, "wb") as file:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            if size_bytes > bound_bytes:
                raise body_too_large(bound_bytes, size_bytes, "models.max_version_bytes")
            pending += chunk
            if len(pending) >= WRITE_BYTES:
                await run_in_threadpool(_write, file, bytes(pending))
                pending.clear()
        await run_in_threadpool(_write, file, bytes(pending))


def _write(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise _disk(error) from None


def _disk(error: OSError) -> UnavailableError:
    why = "is full" if error.errno in _FULL else "cannot be written"
    return UnavailableError("store_unavailable", f"The data folder {why}; nothing was kept.", retry_after_s=30.0)


def _content_type(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise MediaTypeError(
            "encoding_unsupported",
            "A version is sent as it is, without Content-Encoding.",
            field="content-encoding",
            expected="identity",
            got=encoding[:80],
        )
    given = request.headers.get("content-type", FILE_TYPE).partition(";")[0].strip().lower()
    if given not in (FILE_TYPE, FOLDER_TYPE):
        raise MediaTypeError(
            "content_type_unsupported",
            "A version is sent as one file or as a tar archive.",
            field="content-type",
            expected=f"{FILE_TYPE} or {FOLDER_TYPE}",
            got=given[:80],
            example=FILE_TYPE,
        )
    return given


def _filename(request: Request) -> str:
    name = request.headers.get(FILENAME_HEADER, DEFAULT_FILENAME)
    if _FILENAME.fullmatch(name) is None or ".." in name:
        raise InvalidRequestError(
            "name_invalid",
            "This cannot be the name of a model's file.",
            field=FILENAME_HEADER,
            expected="1 to 128 letters, digits, `.`, `_`, `-`",
            got=name[:200],
            example="model.onnx",
        )
    return name


def _check_told_length(request: Request, bound_bytes: int) -> None:
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > bound_bytes:
        raise body_too_large(bound_bytes, int(told), "models.max_version_bytes")
