"""Which keys to look at, or to end: by client, by age, by how long nobody used them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from modelyard.auth.ports import Key, KeySnapshot, is_active
from modelyard.core.errors import InvalidRequestError


class KeySelection(msgspec.Struct, frozen=True):
    """What keys have in common; None: whatever. `unused_since` and `created_before` are UNIX seconds; a key that was
    never used counts from its making."""

    client: str | None = None
    unused_since: float | None = None
    created_before: float | None = None

    def of(self, snapshot: KeySnapshot, last_used: Mapping[str, float]) -> list[Key]:
        """The keys that match, in the snapshot's order."""
        named = {client.id for client in snapshot.clients if self.client in (None, client.name)}
        return [key for key in snapshot.keys if key.client_id in named and self._matches(key, last_used)]

    def to_revoke(
        self, snapshot: KeySnapshot, last_used: Mapping[str, float], now: float, spare: Iterable[str] = ()
    ) -> list[Key]:
        """The matching keys that are active at `now`, without those in `spare` (the caller's own: a bulk change must
        not lock out who makes it). InvalidRequestError("field_missing") if nothing narrows the selection."""
        if self == KeySelection():
            raise InvalidRequestError(
                "field_missing",
                "Say which keys: of a client, unused since, or created before.",
                field="client",
                expected="client, unused_since or created_before",
                example={"unused_since": "90d"},
            )
        spared = set(spare)
        return [key for key in self.of(snapshot, last_used) if is_active(key, now) and key.id not in spared]

    def _matches(self, key: Key, last_used: Mapping[str, float]) -> bool:
        if self.created_before is not None and key.created_at >= self.created_before:
            return False
        return self.unused_since is None or max(key.created_at, last_used.get(key.id, 0.0)) < self.unused_since
