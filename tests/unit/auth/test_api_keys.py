"""Keys: their form, their making, and what a store gets to see of them."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.auth.keys import BASE62, KeyIssuer, key_hash, new_key, parse_key
from modelyard.auth.scopes import Rate, Scope
from modelyard.core.errors import AuthenticationError, InvalidRequestError, NotFoundError
from modelyard.testing import FakeClock, MemoryKeyStore

FORM = re.compile(r"mdy_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}")


def test_a_key_has_the_documented_form() -> None:
    """A key is mdy_, 12, 43 and 6 base62 digits, and names its own id."""
    made = new_key()
    assert FORM.fullmatch(made.text)
    assert parse_key(made.text) == made.id == made.text[4:16]
    assert made.hash == hashlib.sha256(made.text.encode()).digest()


@given(st.binary(min_size=9, max_size=9), st.binary(min_size=32, max_size=32))
def test_all_256_bits_of_the_secret_are_in_the_text(id_bytes: bytes, secret: bytes) -> None:
    """The secret's digits decode to exactly the 32 random bytes: nothing is folded or cut."""
    text = new_key(lambda size: {9: id_bytes, 32: secret}[size]).text
    number = 0
    for digit in text.split("_")[2]:
        number = number * 62 + BASE62.index(digit)
    assert number.to_bytes(32) == secret


@given(st.data())
def test_one_wrong_character_is_malformed(data: st.DataObject) -> None:
    """The checksum finds every single changed character before any lookup."""
    text = new_key(lambda size: bytes(range(size))).text
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([c for c in BASE62 if c != text[position]]))
    with pytest.raises(AuthenticationError) as refused:
        parse_key(text[:position] + other + text[position + 1 :])
    assert refused.value.code == "key_malformed"


@given(st.binary(max_size=200))
def test_noise_is_malformed_and_never_repeated(noise: bytes) -> None:
    """Any bytes are refused in our form, and the refusal says nothing of what was sent but its length."""
    with pytest.raises(AuthenticationError) as refused:
        parse_key(noise)
    assert refused.value.detail["got"] == f"{len(noise)} characters"


def test_a_key_is_issued_and_only_its_hash_is_stored() -> None:
    """The store holds SHA-256 of the text, never the text; the issued key prints as stars."""
    store, clock = MemoryKeyStore(), FakeClock()
    issued = KeyIssuer(store, clock).create(
        "acme", scopes=["predict"], models=["tree*"], rate=Rate(100, 1.0, 100), expires_in_s=60.0
    )
    text = issued.text.get_secret_value()
    snapshot = store.snapshot()
    assert snapshot.keys[0].secret_hash == key_hash(text)
    assert snapshot.keys[0].expires_at == clock.now() + 60.0
    assert (snapshot.clients[0].name, snapshot.clients[0].rate_count) == ("acme", 100)
    assert text.split("_")[2] not in repr(snapshot) + repr(issued) + str(issued)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"client": "a b"}, "name_invalid", "client"),
        ({"client": "a..b"}, "name_invalid", "client"),
        ({"client": ""}, "name_invalid", "client"),
        ({"scopes": ["predict", "root"]}, "parameter_invalid", "scopes"),
        ({"scopes": []}, "parameter_invalid", "scopes"),
        ({"models": ["../x"]}, "parameter_invalid", "models"),
        ({"models": []}, "parameter_invalid", "models"),
        ({"models": ["x" * 129]}, "parameter_invalid", "models"),
    ],
)
def test_a_wrong_wish_is_refused_and_leaves_nothing(change: dict[str, object], code: str, field: str) -> None:
    """A refusal names the field, and neither a client nor a key exists after it."""
    store = MemoryKeyStore()
    wish: dict[str, object] = {"client": "acme", "scopes": ["predict"], "models": ["*"], **change}
    with pytest.raises(InvalidRequestError) as refused:
        KeyIssuer(store, FakeClock()).create(wish.pop("client"), **wish)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.detail["field"]) == (code, field)
    assert (store.snapshot().keys, store.snapshot().clients) == ((), ())


def test_revoking_marks_the_key_and_can_be_repeated() -> None:
    """The first revocation's time stays; an unknown id is key_not_found."""
    store, clock = MemoryKeyStore(), FakeClock()
    issuer = KeyIssuer(store, clock)
    key = issuer.create("acme").key
    first = issuer.revoke(key.id)
    clock.advance(10)
    assert issuer.revoke(key.id).revoked_at == first.revoked_at is not None
    with pytest.raises(NotFoundError):
        issuer.revoke("nobody")


def test_an_operators_own_key_is_adopted_once_by_its_hash() -> None:
    """auth.admin_key: stored as a hash, found again at the next start, refused when short."""
    store = MemoryKeyStore()
    issuer = KeyIssuer(store, FakeClock())
    text = "correct-horse-battery-staple-0123456789"
    key = issuer.adopt(text, "admin", scopes=[Scope.ADMIN])
    assert issuer.adopt(text, "admin", scopes=[Scope.ADMIN]) == key
    assert [stored.secret_hash for stored in issuer.list().keys] == [key_hash(text)]
    with pytest.raises(InvalidRequestError) as refused:
        issuer.adopt("short", "admin", scopes=[Scope.ADMIN])
    assert refused.value.detail["field"] == "auth.admin_key"
    assert "short" not in str(refused.value.detail["got"])
