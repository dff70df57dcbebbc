"""The installation's own secret: random, made once, kept in a private file of the data folder."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from modelyard.core.errors import SettingsError

KEY_FILE = "redaction.key"
SECRET_BYTES = 32


def installation_secret(data: Path) -> bytes:
    """The secret of a data folder, made if there is none; the same for all processes that ask at once.

    The redaction rule `hash` is keyed with it: whoever copies the folder elsewhere keeps the joins, whoever deletes
    the file ends them. SettingsError("data_folder_unusable") if the file cannot be read or is no secret.
    """
    path = data / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise _unusable(f"cannot be used: {error.strerror}") from None
    if len(secret) != SECRET_BYTES:
        raise _unusable(f"does not hold {SECRET_BYTES} bytes")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all: written beside its place, durable, then linked into it; the first one wins."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        fresh.unlink(missing_ok=True)


def _unusable(what: str) -> SettingsError:
    return SettingsError("data_folder_unusable", f"The file `{KEY_FILE}` of the data folder {what}.", field="data")
