"""What DynamoDB refuses, in our words: one sentence that says what, where, and what to do.

Never the vendor's own text: it may hold hosts, account numbers, users and parts of keys.
"""

from __future__ import annotations

import re
from typing import Any

from modelyard.core.errors import InternalError, ModelyardError, UnavailableError
from modelyard.storage.aws.refusals import code_of, lacks_credentials, status_of

RETRY_AFTER_S = 5.0

_BUSY = frozenset(
    {
        "InternalServerError",
        "InternalFailure",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_PASSING_REASONS = frozenset(
    {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}
)
_ACCOUNT = re.compile(r"\d{12}")


class ConditionFailedError(Exception):
    """Somebody was quicker, or it is otherwise than expected; nothing was written. `places` are the positions of the
    conditions of a transaction that did not hold."""

    def __init__(self, places: tuple[int, ...] = (0,)) -> None:
        super().__init__(places)
        self.places = places


class TookTooLongError(Exception):
    """database.busy_timeout_s is over."""


def failed_conditions(error: Exception) -> tuple[int, ...]:
    """The positions of conditions that did not hold; empty if it is another refusal."""
    code = code_of(error)
    if code == "ConditionalCheckFailedException":
        return (0,)
    if code != "TransactionCanceledException":
        return ()
    return tuple(place for place, reason in enumerate(_reasons(error)) if reason == "ConditionalCheckFailed")


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment: a cut or slow connection, or a service that is busy."""
    from botocore import exceptions as vendor
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, vendor.SSLError):
        return False
    if isinstance(error, vendor.ConnectionError | vendor.HTTPClientError | vendor.IncompleteReadError | HTTPError):
        return True
    if isinstance(error, ResponseParserError):  # half an answer, or a proxy's page
        return True
    code = code_of(error)
    if code == "TransactionCanceledException":
        reasons = _reasons(error)
        return bool(reasons) and _PASSING_REASONS.issuperset(reasons)
    return code in _BUSY or status_of(error) >= 500 or status_of(error) == 429


def vendor_errors() -> tuple[type[Exception], ...]:
    """All that the vendor's library raises."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, HTTPError, ResponseParserError


def refusal(error: Exception, table: str, action: str) -> ModelyardError:
    """One sentence; `detail.reason` is a stable word. `action` is the permission that the request needs."""
    where, code = f"`{shown(table)}`", code_of(error)
    if code == "ResourceNotFoundException":
        said = f"There is no table {where}: make it (infra/modules/database), or change database.url or its region."
        return _refused("table_missing", said, "the prefix of tables that exist")
    if _is_no_region(error):
        said = "The database's region is not known: set database.region, or AWS_REGION."
        return _refused("no_region", said, "the tables' region", "database.region")
    if code in _CREDENTIALS or lacks_credentials(error):
        said = f"There are no valid AWS credentials for {where}: give this process a role or a profile, a right clock."
        return _refused("no_credentials", said, "credentials that are found and still valid")
    if code in ("AccessDeniedException", "AccessDenied") or code.startswith("KMS") or status_of(error) == 403:
        said = f"Access to {where} is denied: allow {action}, and its KMS key's use, to the identity of this process."
        return _refused("access_denied", said, f"an identity that may {action}")
    return _passing(error, where, code)


def _passing(error: Exception, where: str, code: str) -> ModelyardError:
    if isinstance(error, TookTooLongError):
        said = f"The table {where} took longer than database.busy_timeout_s: see to the network, or raise it."
        return _refused("too_slow", said, "")
    if is_transient(error) and code:
        return _refused("busy", f"The table {where} is busy: try again in a moment, or raise its capacity.", "")
    if code == "ValidationException" or code == "TransactionCanceledException":
        return InternalError("internal", "The database refused a request of ours.")
    if not code:
        said = f"The database at {where} cannot be reached: see to network, endpoint and proxy of this machine."
        return _refused("unreachable", said, "")
    return _refused("refused", f"The table {where} refused {code}: see to the table and its policy.", "")


def shown(table: str) -> str:
    """For people: many name their tables after the account, whose number is nobody else's business."""
    return _ACCOUNT.sub("…", table)


def _reasons(error: Exception) -> list[str]:
    answer: Any = getattr(error, "response", {})
    return [str(reason.get("Code", "None")) for reason in answer.get("CancellationReasons", ())]


def _is_no_region(error: Exception) -> bool:
    from botocore import exceptions as vendor

    return isinstance(error, vendor.NoRegionError | vendor.InvalidRegionError)


def _refused(reason: str, message: str, expected: str, field: str = "database.url") -> UnavailableError:
    wanted = {"expected": expected} if expected else {}
    return UnavailableError(
        "store_unavailable", message, retry_after_s=RETRY_AFTER_S, field=field, reason=reason, **wanted
    )
