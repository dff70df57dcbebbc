"""Which versions a worker holds: those that must be there, and of the others the newest and last used that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from modelyard.models.ports import Key


class Candidate(msgspec.Struct, frozen=True):
    """A version that is held, or could be. `need_bytes` is of the whole host; `stays`: it has traffic, or is pinned;
    `used_at` is when it was published, used or asked for last (UNIX seconds)."""

    key: Key
    need_bytes: int
    stays: bool = False
    held: bool = False
    used_at: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """What to load, what leaves (the least recently used first), and what fits beside nothing that stays: by version
    how many bytes are held by others then."""

    load: frozenset[Key]
    leave: tuple[Key, ...]
    short: Mapping[Key, int]


def plan(candidates: Iterable[Candidate], has_bytes: int | None, most_idle: int) -> Plan:
    """What stays is never thrown out, the smallest of it is let in first. Of the rest at most `most_idle` are held,
    the last used first, each if it fits beside those before it. `has_bytes` None: everything fits."""
    known = list(candidates)
    used = sum(one.need_bytes for one in known if one.stays and one.held)
    load: set[Key] = set()
    short: dict[Key, int] = {}
    for one in sorted((c for c in known if c.stays and not c.held), key=lambda c: c.need_bytes):
        if has_bytes is None or used + one.need_bytes <= has_bytes:
            used += one.need_bytes
            load.add(one.key)
        else:
            short[one.key] = used
    staying, idle, leave = used, 0, []
    for one in sorted((c for c in known if not c.stays), key=lambda c: (-c.used_at, c.key)):
        if idle < most_idle and (has_bytes is None or used + one.need_bytes <= has_bytes):
            used, idle = used + one.need_bytes, idle + 1
            if not one.held:
                load.add(one.key)
            continue
        if one.held:
            leave.append(one.key)
        if has_bytes is not None and staying + one.need_bytes > has_bytes:
            short[one.key] = staying
    return Plan(frozenset(load), tuple(reversed(leave)), short)
