"""When keys were used, and how much of their daily quotas clients used, in the table of metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from modelyard.auth.ports import QuotaUse
from modelyard.storage.dynamodb.metadata.keys import CLIENT_IDS, KEYS
from modelyard.storage.dynamodb.metadata.transactions import Metadata
from modelyard.storage.dynamodb.refusals import ConditionFailedError
from modelyard.storage.dynamodb.requests import Condition

DAYS_KEPT = 4
"""A client's figures of so many days stay: a wall clock that jumps by a day and back finds what it left."""
USES, QUOTAS = "use", "quota"


class DynamoUsageStore:
    """auth.ports.UsageStore over the table of metadata. Each figure is an item of its own, written without a
    transaction: nothing hangs together here."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def record_uses(self, used_at: Mapping[str, float]) -> None:
        """Notes when keys were last used."""
        known = self._metadata.get_many([(KEYS, key_id) for key_id in used_at], ("revision",))
        self._metadata.requests.write_many(
            self._metadata.table,
            [{"pk": USES, "sk": key_id, "used_at": float(used_at[key_id])} for _pk, key_id in known],
        )

    def last_uses(self) -> dict[str, float]:
        """When each key was last used."""
        return {item["sk"]: float(item["used_at"]) for item in self._metadata.all_of(USES)}

    def keep_quotas(self, used: Sequence[QuotaUse]) -> None:
        """Stores what clients used, each figure by a condition of its own."""
        ids = self._metadata.get_many([(CLIENT_IDS, use.client_id) for use in used], ("revision",))
        for use in used:
            if (CLIENT_IDS, use.client_id) not in ids:
                continue
            item = {"pk": QUOTAS, "sk": f"{use.client_id}#{use.day % DAYS_KEPT}", "day": use.day, "used": use.used}
            older = Condition(
                "attribute_not_exists(#pk) OR #day <> :day OR #used < :used", {"day": use.day, "used": use.used}
            )
            with suppress(ConditionFailedError):
                self._metadata.requests.put(self._metadata.table, item, older)

    def quotas(self) -> tuple[QuotaUse, ...]:
        """All that was kept."""
        items = self._metadata.all_of(QUOTAS)
        return tuple(QuotaUse(item["sk"].rpartition("#")[0], item["day"], item["used"]) for item in items)
