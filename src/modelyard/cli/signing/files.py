"""Signing keys and signatures as files: read, written, and put beside what is published."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.errors import CommandError
from modelyard.core.settings import ModelsSettings
from modelyard.models.manifest import FileEntry
from modelyard.models.signing.keys import MAX_PEM_BYTES, read_private
from modelyard.models.signing.openssf.bundle import is_bundle
from modelyard.models.signing.openssf.coverage import BUNDLE_FILE
from modelyard.models.signing.statement import SIGNATURE_FILE, sign
from modelyard.models.stage import hash_file, hash_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SUFFIX = ".sig"
"""The signature of `model.onnx` is kept in `model.onnx.sig`; that of a folder inside it."""


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key of a PEM file; CommandError("file_unreadable")."""
    try:
        with path.open("rb") as file:
            return read_private(file.read(MAX_PEM_BYTES))
    except OSError as error:
        why = error.strerror or "it cannot be read"
    except ValueError as error:
        why = str(error)
    raise CommandError(
        "file_unreadable",
        f"`{path}` cannot be used as a signing key: {why}.",
        field="--key",
        expected="an Ed25519 private key in PEM, without a passphrase",
        example="modelyard signer create signer.pem",
    )


def signature_path(source: Path) -> Path:
    """Where the signature of a file or folder is kept."""
    return source / SIGNATURE_FILE if source.is_dir() else source.with_name(source.name + SUFFIX)


def is_signed(source: Path) -> bool:
    """Whether a signature or a bundle lies in the folder, or beside the file."""
    return signature_path(source).is_file() or (source.is_dir() and (source / BUNDLE_FILE).is_file())


def make_signature(source: Path, key: Ed25519PrivateKey) -> bytes:
    """The signature file's content for what would be published; TooLargeError, PublishError("archive_unsafe")."""
    return sign(entries(source), key)


def entries(source: Path) -> list[FileEntry]:
    """The files that are signed, with their hashes."""
    bound = ModelsSettings().max_version_bytes
    if not source.is_dir():
        return [hash_file(source, bound)]
    return [entry for entry in hash_folder(source, bound) if entry.path != SIGNATURE_FILE]


def write_private(path: Path, content: bytes) -> None:
    """A file for its owner alone, that was not there before; CommandError("file_unreadable")."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise CommandError(
            "file_unreadable", f"`{path}` is there already; a key is never overwritten.", field="FILE"
        ) from None
    except OSError as error:
        raise CommandError("file_unreadable", f"`{path}` cannot be written: {error.strerror}.", field="FILE") from None


@contextmanager
def signed_source(source: Path, key_file: Path | None) -> Iterator[Path]:
    """What to publish: the source itself, or a copy of it with its signature, made now with the key, or found beside
    a file."""
    beside = signature_path(source)
    if key_file is None and (source.is_dir() or not beside.is_file()):
        yield source
        return
    content = beside.read_bytes() if key_file is None else make_signature(source, private_key(key_file))
    with tempfile.TemporaryDirectory(prefix="modelyard-sign-") as made:
        copy = Path(made) / "model"
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True)
        else:
            copy.mkdir()
            shutil.copyfile(source, copy / source.name)
        place = copy / (BUNDLE_FILE if is_bundle(content) else SIGNATURE_FILE)
        place.unlink(missing_ok=True)
        place.write_bytes(content)
        yield copy
