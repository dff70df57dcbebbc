"""Leases in the table of metadata, by the service's own clock.

Expressions know no time, but every answer is stamped (`Date`, whole seconds). The stamp is never ahead of the moment
at which it is read, so a lease is never taken over early by it; and it is at most a second behind, which is added to
the time to live.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from modelyard.core.lease import Fence
from modelyard.storage import refusals
from modelyard.storage.dynamodb.attributes import Key
from modelyard.storage.dynamodb.metadata.transactions import Metadata
from modelyard.storage.dynamodb.refusals import ConditionFailedError
from modelyard.storage.dynamodb.requests import Condition

LEASES = "lease"
STAMP_S = 1.0
"""How far a stamp may be behind."""


class DynamoLeases:
    """core.lease.Leases over the table of metadata."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def acquire(self, name: str, holder: str, ttl_s: float) -> Fence | None:
        """The lease, if nobody else holds it now."""
        requests, table = self._metadata.requests, self._metadata.table
        found, now = requests.get_at(table, key_of(name))
        if found is not None and found["holder"] not in ("", holder) and found["expires_at"] > now:
            return None
        token = 1 if found is None else found["token"] + 1
        item = {
            "pk": LEASES, "sk": name, "holder": holder, "token": token, "expires_at": now + STAMP_S + ttl_s,
            "taken": uuid.uuid4().hex,
        }  # fmt: skip
        unchanged = Condition("attribute_not_exists(#pk)")
        if found is not None:
            unchanged = Condition("#token = :token", {"token": found["token"]})
        try:
            requests.put(table, item, unchanged)
        except ConditionFailedError:
            # Somebody else was quicker, or we were: a request whose answer was lost is sent again.
            there = requests.get(table, key_of(name))
            if there is None or there.get("taken") != item["taken"]:
                return None
        return Fence(name, token)

    def renew(self, fence: Fence, ttl_s: float) -> None:
        """Holds it for so long from now on."""
        requests, table = self._metadata.requests, self._metadata.table
        _found, now = requests.get_at(table, key_of(fence.name))
        try:
            until = now + STAMP_S + ttl_s
            requests.update(table, key_of(fence.name), "SET #expires_at = :until", held(fence), until=until)
        except ConditionFailedError:
            raise refusals.lease_lost(fence) from None

    def release(self, fence: Fence) -> None:
        """Gives it back."""
        change = "SET #holder = :free, #expires_at = :past"
        with suppress(ConditionFailedError):
            self._metadata.requests.update(
                self._metadata.table, key_of(fence.name), change, held(fence), free="", past=0
            )


def key_of(name: str) -> Key:
    """The key of a lease's item."""
    return LEASES, name


def held(fence: Fence) -> Condition:
    """That the fence is the latest, and not given back."""
    return Condition("#token = :token AND #holder <> :nobody", {"token": fence.token, "nobody": ""})
