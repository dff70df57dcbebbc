"""What a counter's table refuses, in our words: one sentence that says what, where, and what to do.

`retry_after_s` is set where waiting can help; where it is not, the settings are wrong, and a start ends with the
sentence.
"""

from __future__ import annotations

from modelyard.core.errors import UnavailableError
from modelyard.storage.dynamodb import refusals

ACTION = "dynamodb:UpdateItem"
RETRY_AFTER_S = 1.0

_WRONG = {
    "table_missing": (
        "There is no table {where}: make it (infra/modules/database), or change limits.url or AWS_REGION.",
        "the name of a table that exists",
    ),
    "other_table": (
        "The table {where} is not a counter's: its key is pk, a text, alone (infra/modules/database).",
        "a table whose key is pk alone",
    ),
    "no_region": ("The region of {where} is not known: set AWS_REGION.", "the table's region"),
    "no_credentials": (
        "There are no valid AWS credentials for {where}: give this process a role or a profile, and a right clock.",
        "credentials that are found and still valid",
    ),
    "access_denied": (
        "Access to {where} is denied: allow dynamodb:UpdateItem and GetItem, and its KMS key's use, to this process.",
        "an identity that may dynamodb:UpdateItem and dynamodb:GetItem",
    ),
    "refused": ("The table {where} refuses the count: see to the table and its policy.", "a table that takes updates"),
}
_LATER = {
    "busy": "The table {where} is busy: try again in a moment, or raise its capacity.",
    "unreachable": "The table {where} cannot be reached: see to network, endpoint and proxy of this machine.",
}


class ContendedError(Exception):
    """Others changed the item each time."""


def refusal(error: Exception, table: str) -> UnavailableError:
    """UnavailableError("limits_unavailable"); `detail.reason` is a stable word."""
    reason = _reason(error, table)
    where = f"`{refusals.shown(table)}`"
    if reason in _LATER:
        said = _LATER[reason].format(where=where)
        return UnavailableError(
            "limits_unavailable", said, retry_after_s=RETRY_AFTER_S, field="limits.url", reason=reason
        )
    said, expected = _WRONG.get(reason, _WRONG["refused"])
    field = "AWS_REGION" if reason == "no_region" else "limits.url"
    return UnavailableError(
        "limits_unavailable", said.format(where=where), field=field, expected=expected, reason=reason
    )


def in_the_clear() -> UnavailableError:
    """The endpoint that AWS's own settings name has no TLS, and is elsewhere."""
    return UnavailableError(
        "limits_unavailable",
        "Counts would travel in the clear: AWS_ENDPOINT_URL names an address without TLS.",
        field="AWS_ENDPOINT_URL",
        expected="an address that begins with https://",
        reason="in_the_clear",
    )


def _reason(error: Exception, table: str) -> str:
    if isinstance(error, ContendedError):
        return "busy"
    known = refusals.refusal(error, table, ACTION)
    return str(known.detail.get("reason", "other_table"))  # a request of ours that is refused as such has none
