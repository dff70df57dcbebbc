"""What may stand in an event: JSON with one spelling, bounded, without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from modelyard.audit.event import MAX_CHANGE_BYTES, Actor, canonical, changed_only, recorded, time_text, time_us
from modelyard.auth.keys import new_key

LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20), st.just(SecretStr("s"))
)
NAMES = st.text() | st.integers()
ANYTHING = st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=20)


@given(ANYTHING)
@example({"Ā" * 200: None})
@example({"Ā" * 5000: None})
def test_whatever_is_recorded_has_one_spelling(value: Any) -> None:
    """Reading the spelling and writing it again gives the same bytes; numbers are whole and exact in any reader."""
    spelled = canonical(recorded(value))
    again = json.loads(spelled, parse_float=lambda text: pytest.fail(f"a fraction: {text}"))
    assert canonical(again) == spelled
    assert recorded(again) == again


def test_no_secret_is_recorded() -> None:
    """Secret types, members with secret names, raw bytes, and a key's text wherever it slipped in, the
    password of a URL."""
    key = new_key().text
    said = {
        "password": "hunter2", "admin_key": SecretStr("hunter2"), "hash": b"hunter2", "note": f"use {key} now",
        "nested": [{"secret": "hunter2"}, SecretStr("hunter2")],
        "database.url": "mysql://user:hunter2@host/db", "limits.url": "rediss://:hunter2@host", "odd": "x://a:hunter2@b@c",
    }  # fmt: skip
    text = canonical(recorded(said | {key: 1})).decode()
    assert "hunter2" not in text
    assert key not in text
    assert key[:17] in text
    assert "mysql://user:***@host/db" in text
    assert canonical(recorded("http://127.0.0.1:8080/a@b")) == b'"http://127.0.0.1:8080/a@b"'


def test_large_and_deep_values_are_cut() -> None:
    """An event stays small, and says how much was left out."""
    large = recorded({f"setting{number}": "x" * 1000 for number in range(1000)})
    assert large["size_bytes"] > MAX_CHANGE_BYTES
    assert len(canonical(large)) < 1000
    deep: Any = "bottom"
    for _ in range(200):
        deep = [deep]
    assert len(canonical(recorded(deep))) < 3000


def test_only_differences_are_shown() -> None:
    """Members that are equal are left out; those of one side are shown there."""
    assert changed_only({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 5}) == ({"b": 2, "c": 3}, {"b": 4, "d": 5})


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_are_exact(at_us: int) -> None:
    """Microseconds survive being written and read."""
    assert time_us(time_text(at_us)) == at_us


def test_an_actor_is_plain() -> None:
    """At the command line there is neither key nor address."""
    assert Actor("local:0/root") == Actor("local:0/root", "", "", "")
