"""Rows and objects from files: JSON, CSV, NPY."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from modelyard.core.errors import CommandError
from modelyard.core.types import Array

NPY_MAGIC = b"\x93NUMPY"


def read_source(name: str) -> bytes:
    """The bytes of a file, or of standard input for `-`; CommandError("file_unreadable")."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise _unreadable(name, str(error.strerror)) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object; CommandError("file_unreadable")."""
    found = parse_json(read_source(str(path)), str(path))
    if not isinstance(found, dict):
        raise _unreadable(str(path), "it must hold a JSON object")
    return found


def parse_json(body: bytes, name: str) -> Any:
    """JSON; CommandError("file_unreadable") that says where it breaks."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unreadable(name, f"it is not JSON: {error}") from None


def read_csv(body: bytes, name: str) -> list[dict[str, Any]]:
    """Rows of a CSV with a header, numbers as numbers; CommandError("file_unreadable") that names the line."""
    try:
        rows = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""))
        header = next(rows, [])
        if not header or len(set(header)) != len(header):
            raise _unreadable(name, "its first line must name each column once")
        items: list[dict[str, Any]] = []
        for row in rows:
            if len(row) not in (0, len(header)):
                raise _unreadable(name, f"line {rows.line_num} has {len(row)} cells, the header has {len(header)}")
            if row:
                items.append(dict(zip(header, map(_value, row), strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(name, f"it is not CSV in UTF-8: {error}") from None
    return items


def read_npy(body: bytes, name: str) -> Array:
    """An array without objects (loading those would run code); CommandError("file_unreadable")."""
    try:
        array: Array = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(name, f"it is not an NPY file of numbers: {error}") from None
    return array


@contextmanager
def written(out: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file beside `out` that takes its name at the end;
    CommandError("file_unreadable")."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(out)
    except OSError as error:
        raise CommandError("file_unreadable", f"`{out}` cannot be written: {error.strerror}.", field="--out") from None
    finally:
        partial.unlink(missing_ok=True)


def _value(text: str) -> Any:
    """A number where it reads as one; true and false as themselves; else the text."""
    stripped = text.strip()
    if stripped in ("true", "false"):
        return stripped == "true"
    try:
        return int(stripped) if stripped.lstrip("+-").isdigit() else float(stripped)
    except ValueError:
        return text


def _unreadable(name: str, why: str) -> CommandError:
    shown = "Standard input" if name == "-" else f"`{name}`"
    return CommandError("file_unreadable", f"{shown} cannot be read: {why}.", field="FILE")
