"""The event log: one JSON object per line on stderr, one vocabulary (core/events.py), no secret in it.

Values come from callers (model names, headers), so a line is safe whatever they hold: control characters and the
Unicode line separators are escaped, long texts are cut, secrets are starred, what is not JSON becomes text.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, BinaryIO, Protocol, cast

import orjson
import structlog
from pydantic import SecretStr

from modelyard.core.events import Event

MAX_TEXT_CHARS = 4096
"""A longer text is cut, so that one value cannot fill the log."""
MAX_DEPTH = 8
"""Deeper values become text."""

KEY_TEXT = re.compile(r"(mdy_[0-9A-Za-z]{12}_)[0-9A-Za-z_]{8,}")
"""An API key, wherever it may have slipped in; its identifier stays readable."""

# JSON allows these raw inside a string, but some readers split lines at them or obey them: DEL, C1 controls (with
# NEL), LINE SEPARATOR and PARAGRAPH SEPARATOR, as UTF-8.
_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Emit(Protocol):
    """How a station says what happened."""

    def __call__(self, event: Event, level: str = "info", **fields: Any) -> None:
        """Logs one event; never raises for what the fields hold."""


def emit(event: Event, level: str = "info", **fields: Any) -> None:
    """Logs one event of the vocabulary. `level` is debug, info, warning or error; `exc_info=True` adds the
    traceback as one text. Before `configure_logging`, warnings and errors go to stderr."""
    if not structlog.is_configured():
        configure_logging("warning")
    structlog.get_logger().log(_LEVELS[level], str(event), **fields)


def configure_logging(level: str, stream: BinaryIO | None = None) -> None:
    """Sends every event, and every line that a library logs, to `stream` (stderr) from `level` on."""
    out = stream if stream is not None else cast(BinaryIO, _Stderr())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler())
    root.setLevel(max(_LEVELS[level], logging.WARNING))


def render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    """The event as one line of JSON, UTF-8, without the newline (the last structlog processor)."""
    line = orjson.dumps({_safe(str(key), 1): _safe(value, 1) for key, value in event.items()})
    return _UNSAFE.sub(_escape, line)


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match.group().decode())


def _safe(value: Any, depth: int) -> Any:
    """The value as orjson takes it, bounded, without secrets."""
    if isinstance(value, str):
        return _safe_text(str(value))
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {_safe_text(str(key)): _safe(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_safe(item, depth + 1) for item in value]
    return _safe_text(str(value))


def _safe_text(text: str) -> str:
    if len(text) > MAX_TEXT_CHARS:
        text = text[:MAX_TEXT_CHARS] + f"… ({len(text)} characters)"
    text = text.encode("utf-8", "replace").decode()
    return KEY_TEXT.sub(r"\1***", text) if "mdy_" in text else text


class _Stderr:
    """Whatever sys.stderr is at the moment of writing: others may replace it (progress bars, test runners)."""

    def write(self, line: bytes) -> int:
        stream = getattr(sys.stderr, "buffer", None)
        return stream.write(line) if stream is not None else sys.stderr.write(line.decode())

    def flush(self) -> None:
        sys.stderr.flush()
        stream = getattr(sys.stderr, "buffer", None)
        if stream is not None:
            stream.flush()


class _LibraryHandler(logging.Handler):
    """Turns what libraries log through `logging` into events, so that every line is one JSON object."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            emit(
                Event.LIBRARY_MESSAGE,
                record.levelname.lower() if record.levelname.lower() in _LEVELS else "error",
                logger=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:
            self.handleError(record)
