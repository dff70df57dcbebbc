"""What the prediction log may not hold: rules by column name, and what they make of a value.

* `drop`: the value is left out. Where places count (a column without a name), null stands in its place.
* `mask`: `"[redacted]"` stands in its place. A rule without a name is this one.
* `hash`: `"hmac:"` and 32 hexadecimal digits: HMAC-SHA-256 under a secret of the installation, cut to 128 bits. Equal
  values stay equal, so records can still be joined and counted; without the secret nobody can try values out.

A hash does not depend on how a value was sent. Numbers are rounded to their input's datatype first, so that 0.1 in
JSON and 0.1 in four bytes are one value; text and bytes are hashed as bytes, each kind under a prefix of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np

from modelyard.core.types import DATATYPES


class Rule(StrEnum):
    """What happens to the values of a column."""

    DROP = "drop"
    HASH = "hash"
    MASK = "mask"


Rules = Mapping[str, str]
"""Rule by column, input or output; a column without a name is `input[3]`."""

MASKED = "[redacted]"
DROPPED: Final = object()
"""Stands for a value that is left out."""
HASH_PREFIX = "hmac:"
NO_POLICY = "none"
_HASH_DIGITS = 32


def rules_of(declared: Iterable[str] | Rules) -> dict[str, str]:
    """A manifest's `redaction`, names alone or names with rules, as rules."""
    return dict(declared) if isinstance(declared, Mapping) else dict.fromkeys(declared, Rule.MASK.value)


def policy_text(declared: Iterable[str] | Rules) -> str:
    """The rules as a frame's header carries them: JSON by name, or "none"."""
    rules = rules_of(declared)
    return json.dumps(rules, ensure_ascii=False, separators=(",", ":")) if rules else NO_POLICY


@lru_cache(maxsize=1024)
def read_policy(policy: str) -> Rules:
    """The rules of a header's policy. Frames of before rules had names are read too: names joined by commas."""
    if policy in ("", NO_POLICY):
        return {}
    if policy.startswith("{"):
        try:
            found = json.loads(policy)
            return {str(name): str(rule) for name, rule in found.items()}
        except (ValueError, AttributeError):
            pass  # a column of that name, in the old form
    return dict.fromkeys(policy.split(","), Rule.MASK.value)


class Redaction:
    """Rules and the secret they hash with. Without a secret, `hash` masks: an unkeyed hash could be guessed."""

    __slots__ = ("_key", "_rules", "names")

    def __init__(self, rules: Rules, key: bytes = b"") -> None:
        self._rules = rules
        self._key = key
        self.names = frozenset(rules)

    def __bool__(self) -> bool:
        return bool(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def rule(self, names: Iterable[str]) -> Rule:
        """The rule of the first of these names that has one; `mask` for a rule that is not known here."""
        found = next((self._rules[name] for name in names if name in self._rules), Rule.MASK)
        return Rule(found) if found in Rule.__members__.values() else Rule.MASK

    def shown(self, name: str, value: Any, datatype: str = "") -> Any:
        """What the log shows of a redacted name's value, a single one or nested lists; perhaps DROPPED."""
        rule = self.rule((name,))
        if rule is Rule.DROP:
            return DROPPED
        return self._hashed(value, datatype) if rule is Rule.HASH and self._key else MASKED

    def in_place(self, name: str, value: Any, datatype: str = "") -> Any:
        """The same where places count: null instead of DROPPED."""
        shown = self.shown(name, value, datatype)
        return None if shown is DROPPED else shown

    def _hashed(self, value: Any, datatype: str) -> Any:
        if isinstance(value, list):
            return [self._hashed(element, datatype) for element in value]
        if value is None:
            return None
        digest = hmac.new(self._key, canonical(value, datatype), hashlib.sha256).hexdigest()
        return HASH_PREFIX + digest[:_HASH_DIGITS]


def canonical(value: Any, datatype: str = "") -> bytes:
    """The bytes that stand for one JSON value of a tensor of this datatype, however it was sent."""
    if isinstance(value, bool):
        return b"b:1" if value else b"b:0"
    if isinstance(value, int | float):
        return b"n:" + _number(value, datatype)
    if isinstance(value, str):
        return b"t:" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and value.keys() == {"base64"}:
        return b"t:" + base64.b64decode(value["base64"])
    return b"j:" + json.dumps(value, sort_keys=True).encode()


def _number(value: float, datatype: str) -> bytes:
    if datatype.startswith("FP"):
        with np.errstate(all="ignore"):
            value = float(DATATYPES[datatype].type(value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return repr(value).encode()
