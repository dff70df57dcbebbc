"""The two tables: their names, and what they must be like. Terraform makes them (infra/modules/database/dynamodb.tf);
a test compares both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.core.errors import SettingsError
from modelyard.storage.dynamodb.refusals import shown

SCHEME = "dynamodb://"
METADATA, PREDICTIONS = "metadata", "predictions"
BY_KIND, BY_DAY = "by_kind", "by_day"
EXPIRES_AT = "expires_at"
"""UNIX seconds after which DynamoDB may delete a record, and no reader sees it."""

KEYS = ("pk", "sk")
INDEXES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    METADATA: {BY_KIND: ("kind", "sort")},
    PREDICTIONS: {BY_DAY: ("day", "at")},
}
"""Indexes by table: partition and sort key. All attributes are projected."""
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Tables(msgspec.Struct, frozen=True):
    """Their full names."""

    metadata: str
    predictions: str

    @classmethod
    def parse(cls, url: str) -> Tables:
        """From `database.url`; SettingsError("setting_invalid")."""
        prefix = url.removeprefix(SCHEME).rstrip("/")
        if not _PREFIX.fullmatch(prefix):
            raise SettingsError(
                "setting_invalid",
                "The setting `database.url` names no prefix of tables.",
                field="database.url",
                expected="dynamodb:// and a prefix of letters, digits, `_`, `-` and `.`",
                example="dynamodb://modelyard-production",
            )
        return cls(f"{prefix}-{METADATA}", f"{prefix}-{PREDICTIONS}")


def check_table(described: Mapping[str, Any], table: str, indexes: Mapping[str, tuple[str, str]]) -> None:
    """SettingsError("setting_invalid") unless DescribeTable's answer has our keys and indexes."""
    found = {str(index["IndexName"]): _keys(index) for index in described.get("GlobalSecondaryIndexes", ())}
    if _keys(described) != KEYS or any(found.get(name) != keys for name, keys in indexes.items()):
        wanted = ", ".join(f"{name} ({', '.join(keys)})" for name, keys in indexes.items())
        raise SettingsError(
            "setting_invalid",
            f"The table `{shown(table)}` has other keys or indexes than ours: make it as infra/modules/database does.",
            field="database.url",
            expected=f"the keys pk, sk and the index {wanted}",
        )


def _keys(described: Mapping[str, Any]) -> tuple[str, ...]:
    names = {part["KeyType"]: part["AttributeName"] for part in described.get("KeySchema", ())}
    return tuple(names[kind] for kind in ("HASH", "RANGE") if kind in names)
