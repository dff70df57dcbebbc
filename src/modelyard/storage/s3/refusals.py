"""What the object store refuses, in our words: one sentence that says what, where, and what to do.

Never the vendor's own text: it may hold hosts, account numbers, users and parts of keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modelyard.core.errors import ConflictError, ModelyardError, UnavailableError
from modelyard.models.manifest import FileEntry
from modelyard.storage.aws.refusals import code_of, lacks_credentials, status_of
from modelyard.storage.s3.location import Location

RETRY_AFTER_S = 5.0
NOT_OURS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"})
"""The answers to a conditional write that somebody else, or a lost answer's own request, was quicker than."""

_BUSY = frozenset({"SlowDown", "RequestTimeout", "RequestLimitExceeded", "InternalError", "ServiceUnavailable"})
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)


class TookTooLongError(Exception):
    """artifacts.timeout_s is over."""


class WrongLengthError(Exception):
    """The object is not of the length that the manifest says."""

    def __init__(self, got: str) -> None:
        super().__init__(got)
        self.got = got


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment: a cut or slow connection, or a store that is busy."""
    from botocore import exceptions as vendor
    from urllib3.exceptions import HTTPError

    if isinstance(error, vendor.SSLError):
        return False
    if isinstance(error, vendor.ConnectionError | vendor.HTTPClientError | vendor.IncompleteReadError | HTTPError):
        return True
    return code_of(error) in _BUSY or status_of(error) >= 500 or status_of(error) == 429


@contextmanager
def in_our_words(location: Location, action: str) -> Iterator[None]:
    """UnavailableError("store_unavailable") for whatever the vendor's library raises inside. `action` is the
    permission that the request needs."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (BotoCoreError, ClientError, HTTPError, TookTooLongError) as error:
        raise refusal(error, location, action) from None


def refusal(error: Exception, location: Location, action: str) -> ModelyardError:
    """One sentence; `detail.reason` is a stable word."""
    where = f"`{location.shown()}`"
    code = code_of(error)
    if code == "NoSuchBucket":
        said = f"The bucket of {where} does not exist: make it, or change artifacts.url."
        return _refused("bucket_missing", said, "the address of a bucket that exists")
    if code in _ELSEWHERE:
        said = f"The bucket of {where} is in another region: set artifacts.region to its own."
        return _refused("wrong_region", said, "the bucket's region", "artifacts.region")
    if code in _CREDENTIALS or lacks_credentials(error):
        said = f"There are no valid AWS credentials for {where}: give this process a role or a profile."
        return _refused("no_credentials", said, "credentials that are found and still valid")
    if code == "RequestTimeTooSkewed":
        return _refused("clock_wrong", f"The clock is too wrong for {where}: synchronise it.", "a clock that is right")
    if status_of(error) == 403 or code.startswith("KMS."):
        said = f"Access to {where} is denied: allow {action}, and its KMS key's use, to the identity of this process."
        return _refused("access_denied", said, f"an identity that may {action}")
    return _passing(error, where, code)


def _passing(error: Exception, where: str, code: str) -> ModelyardError:
    if isinstance(error, TookTooLongError):
        said = f"The object store at {where} took longer than artifacts.timeout_s: see to the network, or raise it."
        return _refused("too_slow", said, "")
    if not code:
        said = f"The object store at {where} cannot be reached: see to network, endpoint and proxy of this machine."
        return _refused("unreachable", said, "")
    if is_transient(error):
        return _refused("busy", f"The object store at {where} is busy: try again in a moment.", "")
    return _refused("refused", f"The object store at {where} refused {code}: see to the bucket and its policy.", "")


def _refused(reason: str, message: str, expected: str, field: str = "artifacts.url") -> UnavailableError:
    wanted = {"expected": expected} if expected else {}
    return UnavailableError(
        "store_unavailable", message, retry_after_s=RETRY_AFTER_S, field=field, reason=reason, **wanted
    )


def not_as_published(digest: str, path: str, expected: str, got: str) -> UnavailableError:
    """What lies in the store is not what was put there (promise P5)."""
    return UnavailableError(
        "model_not_ready",
        f"`{path}` of version content `{digest[:12]}` is not in the object store as it was published.",
        retry_after_s=30.0,
        field=path,
        expected=expected,
        got=got,
    )


def written_otherwise(digest: str, entry: FileEntry, got: str) -> ConflictError:
    """A key is written once, and somebody wrote other bytes."""
    return ConflictError(
        "version_exists",
        f"The object store holds other bytes as `{entry.path}` of version content `{digest[:12]}`; they stay.",
        field=entry.path,
        expected=entry.sha256,
        got=got,
    )


def written_meanwhile(location: Location) -> UnavailableError:
    """Another writer is at the same key, and neither has finished."""
    said = f"Another publish writes the same files to `{location.shown()}` now: try again in a moment."
    return UnavailableError("store_unavailable", said, retry_after_s=1.0, reason="written_meanwhile")
