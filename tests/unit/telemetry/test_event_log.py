"""The event log: one JSON object per line, whatever callers put into it, and no secret (S4, S13)."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from modelyard.auth.keys import new_key
from modelyard.core.events import Event
from modelyard.telemetry.logs import MAX_TEXT_CHARS, configure_logging, emit


@pytest.fixture
def out() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.BytesIO()
    configure_logging("info", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    """Every line as any reader splits them: also at the Unicode separators."""
    text = stream.getvalue().decode()
    assert text.count("\n") == len(text.splitlines())
    return [orjson.loads(line) for line in text.splitlines()]


def test_an_event_is_one_json_object_with_time_and_level(out: io.BytesIO) -> None:
    """Name, level, UTC time, fields."""
    emit(Event.WORKER_READY, worker=3)
    (line,) = lines(out)
    assert (line["event"], line["level"], line["worker"]) == ("worker.ready", "info", 3)
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    "text",
    [
        'a\n{"event":"server.started"}',
        "a\r\nb",
        "\x1b[31mred",
        "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
        '"}{"event":"forged"',
        "\udc80\ud800",
        "\x00\x7f\x9b31m",
    ],
)
def test_nothing_in_a_value_or_a_name_forges_a_line(out: io.BytesIO, text: str) -> None:
    """S13: newlines, separators, quotes, escapes, lone surrogates: one line, no raw control character."""
    emit(Event.MODEL_REFUSED, model=text, **{text: [text, {text: text}]})
    assert len(lines(out)) == 1
    raw = out.getvalue().decode()
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029" for c in raw[:-1])


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_LIKE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_makes_one_line(out: io.BytesIO, value: object) -> None:
    """Whatever is logged, logging does not raise and stays one object per line."""
    out.seek(0)
    out.truncate()
    emit(Event.REQUEST_FAILED, value=value)
    assert len(lines(out)) == 1


def test_secrets_print_as_stars(out: io.BytesIO) -> None:
    """S4: a typed secret, a key inside any text, and raw bytes never appear; a key's identifier does."""
    made = new_key()
    secret, key_id = made.text.split("_")[2], made.id
    emit(
        Event.SERVER_STARTING,
        settings={"admin_key": SecretStr(made.text)},
        header=f"x-api-key: {made.text}; and {made.text}",
        raw=made.text.encode(),
    )
    logging.getLogger("some.package").error("refused %s", made.text)
    text = out.getvalue().decode()
    assert secret not in text
    assert f"mdy_{key_id}_***" in text
    assert "**********" in text


def test_long_texts_are_cut(out: io.BytesIO) -> None:
    """A 1 MiB name takes a few KiB of log and says how long it was."""
    emit(Event.MODEL_REFUSED, model="x" * 2**20)
    assert len(out.getvalue()) < MAX_TEXT_CHARS + 500
    assert "1048576 characters" in lines(out)[0]["model"]


def test_depth_is_bounded(out: io.BytesIO) -> None:
    """A value that contains itself ends as text."""
    loop: list[Any] = []
    loop.append(loop)
    emit(Event.REQUEST_FAILED, value=loop)
    assert len(lines(out)) == 1


def test_the_level_is_the_least_that_is_written(out: io.BytesIO) -> None:
    """Lower events and lower lines of libraries are left out."""
    configure_logging("warning", out)
    emit(Event.WORKER_READY)
    emit(Event.WORKER_LOST, "error")
    logging.getLogger("some.package").info("chatter")
    assert [line["event"] for line in lines(out)] == ["worker.lost"]


def test_libraries_speak_json_too(out: io.BytesIO) -> None:
    """A line through Python's logging, with its traceback, is one event of ours."""
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("some.package").exception("it broke")
    (line,) = lines(out)
    assert (line["event"], line["logger"], line["message"]) == ("library.message", "some.package", "it broke")
    assert "ValueError: a\nb" in line["exception"]


def test_an_exception_is_one_text(out: io.BytesIO) -> None:
    """exc_info adds the traceback as one field."""
    try:
        raise RuntimeError("deep")
    except RuntimeError:
        emit(Event.REQUEST_FAILED, "error", exc_info=True)
    assert "RuntimeError: deep" in lines(out)[0]["exception"]


def test_before_it_is_configured_only_warnings_are_written_and_to_stderr(capsysbinary: Any) -> None:
    """A program's own output stays its own: nothing is ever logged to stdout."""
    structlog.reset_defaults()
    handlers = list(logging.getLogger().handlers)
    try:
        emit(Event.WORKER_READY)
        emit(Event.WORKER_LOST, "error")
        written = capsysbinary.readouterr()
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
    assert written.out == b""
    assert [orjson.loads(line)["event"] for line in written.err.splitlines()] == ["worker.lost"]


def test_event_names_are_stations_and_facts() -> None:
    """One vocabulary: `<station>.<what>` in small letters, each name once."""
    names = [event.value for event in Event]
    assert len(set(names)) == len(names) == len(Event.__members__)
    assert all(name.replace("_", "").replace(".", "").islower() and name.count(".") == 1 for name in names)
