"""Exit codes, and the one red line that a refusal becomes.

| code | meaning |
|---|---|
| 0 | done |
| 1 | refused or failed |
| 2 | the command line itself is wrong |
| 3 | there is no such thing |
| 4 | the key is missing, wrong, or may not |
| 5 | it is otherwise already |
| 6 | not now: unreachable, busy, limited |
| 130 | interrupted |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import orjson

from modelyard.core.errors import (
    AuthenticationError,
    AuthorizationError,
    ConflictError,
    DeadlineError,
    LimitError,
    ModelyardError,
    NotFoundError,
    OverloadError,
    UnavailableError,
)


class Exit(IntEnum):
    """What the process says when it ends."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTHENTICATION = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    INTERRUPTED = 130


_FAMILIES: Mapping[type[ModelyardError], Exit] = {
    NotFoundError: Exit.NOT_FOUND,
    AuthenticationError: Exit.AUTHENTICATION,
    AuthorizationError: Exit.AUTHENTICATION,
    ConflictError: Exit.CONFLICT,
    UnavailableError: Exit.UNAVAILABLE,
    OverloadError: Exit.UNAVAILABLE,
    LimitError: Exit.UNAVAILABLE,
    DeadlineError: Exit.UNAVAILABLE,
}
_CODES: Mapping[str, Exit] = {
    "usage_invalid": Exit.USAGE,
    "setting_invalid": Exit.USAGE,
    "name_invalid": Exit.USAGE,
    "rate_invalid": Exit.USAGE,
    "parameter_invalid": Exit.USAGE,
    "traffic_invalid": Exit.USAGE,
    "server_not_running": Exit.UNAVAILABLE,
    "server_unreachable": Exit.UNAVAILABLE,
    "backup_exists": Exit.CONFLICT,
    "folder_not_empty": Exit.CONFLICT,
    "copy_target_taken": Exit.CONFLICT,
    "copy_same_side": Exit.USAGE,
}

_REMEDIES: Mapping[str, str] = {
    "key_missing": "Give a key with --key or MODELYARD_KEY; `modelyard keys create NAME` makes one.",
    "key_invalid": "Check the key, or make one: `modelyard keys create NAME`.",
    "key_malformed": "Copy the key whole, from `mdy_` to its end.",
    "key_revoked": "Make a new one: `modelyard keys create NAME`.",
    "key_expired": "Make a new one: `modelyard keys create NAME`.",
    "model_not_found": "`modelyard models list` shows what there is.",
    "endpoint_not_found": "`modelyard models list` shows what there is.",
    "version_not_found": "`modelyard models show MODEL` shows its versions.",
    "key_not_found": "`modelyard keys list` shows what there is.",
    "prediction_not_found": "`modelyard predictions list` shows the newest.",
    "version_exists": "Publish under another --version, or without one for the next number.",
    "server_not_running": "Start one: `modelyard serve`.",
    "backup_exists": "Choose another --out; old backups are yours to remove.",
    "backup_too_new": "Restore it with the Modelyard that made it, or a newer one.",
    "backup_damaged": "`modelyard backup verify BACKUP` names all that is wrong; take another backup.",
    "folder_not_empty": "Choose another --data; `modelyard serve --data` follows.",
    "copy_target_taken": "Choose another --to: an empty database, or a data folder that is not there.",
    "data_folder_in_use": "Use --server URL to speak with the server that has it.",
}


def exit_code(error: ModelyardError) -> Exit:
    """The exit code of a refusal."""
    return _CODES.get(error.code) or _FAMILIES.get(type(error), Exit.REFUSED)


def refusal_lines(error: ModelyardError) -> tuple[str, str]:
    """The sentence with its code, and what to do about it ("" if nobody knows), one line each."""
    return _one_line(f"{error.message} [{error.code}]"), _one_line(_remedy(error))


def _remedy(error: ModelyardError) -> str:
    if remedy := _REMEDIES.get(error.code):
        return remedy
    detail = error.detail
    words = (("Expected", "expected"), ("got", "got"))
    known = ", ".join(f"{word} {_text(detail[name])}" for word, name in words if detail.get(name) not in (None, ""))
    example = f"Example: {_text(detail['example'])}" if detail.get("example") else ""
    return f"{known}. {example}".strip() if known else example


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _one_line(text: str) -> str:
    """Without line breaks and control characters: texts come from callers and servers."""
    return "".join(c if c.isprintable() else " " for c in text)[:1000].strip()
