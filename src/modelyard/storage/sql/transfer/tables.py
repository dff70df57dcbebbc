"""Which tables a copy holds, in which order, and how a row of each is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Table

from modelyard.storage.sql import schema

LEFT_OUT: Mapping[str, str] = {
    "spool_positions": "they are of files in one data folder; what is in both is stored once, by its id",
    "leases": "they are of processes that run now",
}
"""What no copy holds, and why."""

ALWAYS_FILLED = frozenset({schema.snapshot.name})
"""Tables that an empty database of ours has a row in."""


def copied_tables() -> tuple[Table, ...]:
    """All that a copy holds, each behind those that it refers to. The audit log comes first: with it a target says
    whose copy it is."""
    rest = [table for table in schema.metadata.sorted_tables if table.name not in LEFT_OUT]
    rest.remove(schema.audit_events)
    return (schema.audit_events, *rest)


def key_of(table: Table) -> tuple[Column[Any], ...]:
    """The columns that a row is known by."""
    return tuple(table.primary_key.columns)


def is_referred_to(table: Table) -> bool:
    """Whether rows of another table refer to rows of this one: those cannot be taken away and put back."""
    others = (other for other in schema.metadata.tables.values() if other is not table)
    return any(key.column.table is table for other in others for key in other.foreign_keys)
