"""The snapshot that a request is checked against (promise P7)."""

from __future__ import annotations

import os
import statistics
import time

import pytest

from modelyard.auth import table as table_module
from modelyard.auth.keys import NewKey, new_key
from modelyard.auth.ports import Client, Key, KeySnapshot
from modelyard.auth.scopes import Scope
from modelyard.auth.table import MEMO_ENTRIES, KeyTable, ModelMatcher
from modelyard.core.errors import AuthenticationError, AuthorizationError

NOW = 1_000_000.0


def table_of(
    made: NewKey,
    *,
    scopes: tuple[str, ...] = ("predict",),
    models: tuple[str, ...] = ("tree*", "digits"),
    expires_at: float | None = None,
    revoked_at: float | None = None,
) -> KeyTable:
    client = Client("c1", "acme", slot=7, rate_count=100, rate_period_s=10.0, burst=20)
    key = Key(made.id, "c1", made.hash, scopes, models, 0.0, expires_at, revoked_at)
    return KeyTable(KeySnapshot(3, (client,), (key,)))


def refusal(table: KeyTable, presented: bytes | None, now: float = NOW) -> str:
    with pytest.raises(AuthenticationError) as refused:
        table.authenticate(presented, now)
    return refused.value.code


def test_a_known_key_names_its_principal() -> None:
    """Everything that the later stations need is in the principal."""
    made = new_key()
    principal = table_of(made).authenticate(made.text.encode(), NOW)
    assert (principal.key_id, principal.client, principal.slot) == (made.id, "acme", 7)
    assert (principal.interval_s, principal.burst) == (0.1, 20)


def test_every_refusal_has_its_code() -> None:
    """missing, malformed, invalid (unknown id and wrong secret alike), revoked, expired at its very second."""
    made, other = new_key(), new_key()
    table, text = table_of(made), made.text.encode()
    same_id = new_key(lambda size: _id_bytes(made.id) if size == 9 else bytes(32))
    assert same_id.id == made.id
    assert refusal(table, None) == refusal(table, b"") == "key_missing"
    assert refusal(table, text[:-1]) == refusal(table, text + b" ") == refusal(table, b"\xff") == "key_malformed"
    assert refusal(table, other.text.encode()) == refusal(table, same_id.text.encode()) == "key_invalid"
    assert refusal(table_of(made, revoked_at=NOW - 1), text) == "key_revoked"
    assert refusal(table_of(made, expires_at=NOW), text) == "key_expired"
    assert table_of(made, expires_at=NOW + 1).authenticate(text, NOW)


def test_a_wrong_secret_does_not_learn_that_its_key_is_revoked() -> None:
    """Only who holds the whole secret hears revoked or expired."""
    made = new_key()
    same_id = new_key(lambda size: _id_bytes(made.id) if size == 9 else bytes(32))
    assert refusal(table_of(made, revoked_at=1.0, expires_at=2.0), same_id.text.encode()) == "key_invalid"


def test_an_unknown_id_and_a_wrong_secret_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3: one hash, one comparison, one parse, for both; a hit has one hash and one comparison as well."""
    made, calls = new_key(), []
    same_id = new_key(lambda size: _id_bytes(made.id) if size == 9 else bytes(32))
    for name in ("sha256", "compare_digest", "parse_key"):
        original = getattr(table_module, name)
        monkeypatch.setattr(
            table_module, name, lambda *args, name=name, original=original: (calls.append(name), original(*args))[1]
        )
    table = table_of(made)
    seen = []
    for presented in (new_key().text, same_id.text):
        calls.clear()
        refusal(table, presented.encode())
        seen.append(list(calls))
    assert seen[0] == seen[1] == ["sha256", "compare_digest", "parse_key"]
    calls.clear()
    table.authenticate(made.text.encode(), NOW)
    assert calls == ["sha256", "compare_digest"]


def test_refusals_take_the_same_time() -> None:
    """S3: the median refusals of 10,000 interleaved pairs of fresh keys, unknown id against wrong secret, lie less
    than 100 ns apart: a hash or a comparison left out on one of the roads would show.

    Welch's t is not used: on one machine and one process it measures where the objects lie in memory, with either
    sign, before it measures the code.
    """
    made = new_key()
    table, stored_id = table_of(made), _id_bytes(made.id)
    unknown: list[int] = []
    wrong: list[int] = []
    for round_ in range(10_000):
        pair = [
            (new_key().text.encode(), unknown),
            (new_key(lambda size: stored_id if size == 9 else os.urandom(size)).text.encode(), wrong),
        ]
        for presented, times in pair if round_ % 2 else reversed(pair):
            started = time.perf_counter_ns()
            refusal_time(table, presented)
            times.append(time.perf_counter_ns() - started)
    assert abs(statistics.median(unknown) - statistics.median(wrong)) < 100


def refusal_time(table: KeyTable, presented: bytes) -> None:
    try:
        table.authenticate(presented, NOW)
    except AuthenticationError:
        return


def test_scope_and_model_are_required() -> None:
    """A missing scope and a model outside the patterns are refused by name; a right pair passes."""
    made = new_key()
    principal = table_of(made).authenticate(made.text.encode(), NOW)
    principal.require(Scope.PREDICT, "tree-2")
    principal.require(Scope.PREDICT)
    with pytest.raises(AuthorizationError) as no_scope:
        principal.require(Scope.ADMIN)
    with pytest.raises(AuthorizationError) as no_model:
        principal.require(Scope.PREDICT, "forest")
    assert (no_scope.value.code, no_model.value.code) == ("scope_missing", "model_not_allowed")


def test_admin_reads_but_cannot_predict() -> None:
    """admin brings audit and metrics along, and nothing else; audit brings nothing."""
    made = new_key()
    admin = table_of(made, scopes=("admin",)).authenticate(made.text.encode(), NOW)
    assert admin.scopes == {Scope.ADMIN, Scope.AUDIT, Scope.METRICS}
    audit = table_of(made, scopes=("audit", "from-the-future")).authenticate(made.text.encode(), NOW)
    assert audit.scopes == {Scope.AUDIT}


def test_patterns_match_whole_names_and_nothing_by_default() -> None:
    """Globs, case-sensitive, anchored on both sides; no pattern allows nothing."""
    matcher = ModelMatcher(["tree*", "digits", "v[12]"])
    verdicts = {
        name: matcher.allows(name) for name in ("tree", "tree-9", "digits", "v2", "xtree", "digits2", "Tree", "v3")
    }
    assert [name for name, allowed in verdicts.items() if allowed] == ["tree", "tree-9", "digits", "v2"]
    assert not ModelMatcher([]).allows("tree")


def test_the_memo_is_bounded() -> None:
    """A caller that makes up names fills nothing: the memo starts over at its bound."""
    matcher = ModelMatcher(["tree*"])
    for number in range(3 * MEMO_ENTRIES):
        assert matcher.allows(f"tree{number}")
        assert len(matcher._memo) <= MEMO_ENTRIES
    assert not matcher.allows("x" * 100_000)
    assert "x" * 100_000 not in matcher._memo


def _id_bytes(key_id: str) -> bytes:
    number = 0
    for digit in key_id:
        number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(digit)
    return number.to_bytes(9)
