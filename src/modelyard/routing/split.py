"""Which arm? A pure function of salt, subject and weights (promise P12)."""

from __future__ import annotations

from hashlib import blake2b

_SPAN = 2**64


def bucket(salt: str, subject: str) -> float:
    """A number in [0, 1) for a subject: the first 64 bits of BLAKE2b over `salt NUL subject`, over 2^64.

    The same in every language, process and year; test vectors stand in tests/unit/routing/test_split.py.
    """
    digest = blake2b(salt.encode() + b"\0" + subject.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _SPAN


def assign(salt: str, subject: str, weights: tuple[tuple[str, int], ...]) -> int:
    """The position in `weights` (shares in percent, in order) that this subject falls on.

    Arms are laid end to end on [0, 1), so between two arms a change of weights moves only the share that changed; with
    more arms, also subjects between neighbours of the arm that changed. Arms of weight 0 are never chosen.
    """
    point = bucket(salt, subject) * sum(share for _, share in weights)
    reached = 0
    last = 0
    for position, (_, share) in enumerate(weights):
        if share <= 0:
            continue
        last = position
        reached += share
        if point < reached:
            return position
    return last
