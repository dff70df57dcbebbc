"""What a counter's server refuses, in our words: one sentence that says what, where, and what to do.

Never the server's own text: it may hold hosts and users. `retry_after_s` is set where waiting can help; where it is
not, the settings are wrong, and a start ends with the sentence.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from valkey import exceptions as vendor

from modelyard.core.errors import UnavailableError
from modelyard.storage.valkey.location import Location

RETRY_AFTER_S = 1.0

_ANSWERS = {
    "MISCONF": "read_only",
    "NOREPLICAS": "read_only",
    "MASTERDOWN": "read_only",
    "CLUSTERDOWN": "busy",
    "TRYAGAIN": "busy",
    "BUSY": "busy",
    "MOVED": "cluster",
    "ASK": "cluster",
    "DENIED": "not_permitted",
}
"""What the first word of an answer means, where the library has no class for it."""
_IN_SCRIPT = ("ACL failure in script", "user executing the script")
"""What servers from 7 on, and before, say where a script calls what its user may not."""


def refusal(error: BaseException, location: Location) -> UnavailableError:
    """UnavailableError("limits_unavailable"); `detail.reason` is a stable word."""
    where = f"`{location.shown()}`"
    return _network(error, where, location) or _server(error, where, location)


def _network(error: BaseException, where: str, location: Location) -> UnavailableError | None:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        said = (
            f"The certificate of {where} is not trusted: name its authorities in limits.tls_ca, and its host as it is"
        )
        return _wrong(
            "tls_refused", f"{said} in the certificate.", "a certificate that can be verified", "limits.tls_ca"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        said = f"No TLS can be spoken with {where}: give limits.url the scheme that the server speaks."
        return _wrong("tls_refused", said, "redis:// without TLS, rediss:// with it")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return _wrong("unknown_host", f"There is no host of the name in {where}: change limits.url.", "a host's name")
    if isinstance(error, vendor.TimeoutError | TimeoutError):
        return _later("too_slow", f"The counter at {where} took longer than limits.timeout_ms.")
    if isinstance(error, vendor.ConnectionError) and not isinstance(error, _SAID):
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            return _later("unreachable", f"Nobody listens at {where}: start the server, or change limits.url.")
        hint = "" if location.tls else ", and whether it wants TLS (rediss://)"
        return _later("unreachable", f"The counter at {where} cannot be reached: see to server and network{hint}.")
    return None


_SAID = (vendor.AuthenticationError, vendor.AuthorizationError, vendor.BusyLoadingError)
"""Connection errors that are answers of the server."""


def _server(error: BaseException, where: str, location: Location) -> UnavailableError:
    if isinstance(error, vendor.AuthenticationError | vendor.AuthenticationWrongNumberOfArgsError):
        if location.cache:
            said = f"The cache at {where} refuses the token: see that user and cache in limits.url are right, that this"
            said = f"{said} role may elasticache:Connect to both, and that this machine's clock is right."
            return _wrong("wrong_login", said, "a user and a cache that this role may connect to")
        said = f"The counter at {where} refuses the login: look at limits.password, and at the user in limits.url."
        return _wrong("wrong_login", said, "the login of a user who may count", "limits.password")
    word = _ANSWERS.get(str(error).partition(" ")[0], "")
    denied = any(said in str(error) for said in _IN_SCRIPT)
    if isinstance(error, vendor.NoPermissionError) or word == "not_permitted" or denied:
        said = f"The user may not count at {where}: allow it what docs/concepts/limits.md names, on keys modelyard:*."
        return _wrong("not_permitted", said, "a user who may run scripts on modelyard:*")
    if isinstance(error, vendor.ReadOnlyError) or word == "read_only":
        return _later("read_only", f"The counter at {where} takes no writes now: name its primary in limits.url.")
    if isinstance(error, vendor.OutOfMemoryError):
        return _later("full", f"The memory of the counter at {where} is full: give it more.")
    if isinstance(error, vendor.BusyLoadingError) or word == "busy":
        return _later("busy", f"The counter at {where} is busy: try again in a moment.")
    if word == "cluster":
        said = f"The node at {where} is one of a cluster: name an address that routes for it, or a server by itself."
        return _wrong("cluster", said, "a server, or a cluster's routing address")
    said = f"The counter at {where} answers what no counter does: see whether it is Valkey, or Redis from 6 on, and"
    return _wrong("refused", f"{said} whether it has that database.", "Valkey, or Redis from 6 on")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _later(reason: str, message: str) -> UnavailableError:
    return UnavailableError(
        "limits_unavailable", message, retry_after_s=RETRY_AFTER_S, field="limits.url", reason=reason
    )


def _wrong(reason: str, message: str, expected: str, field: str = "limits.url") -> UnavailableError:
    return UnavailableError("limits_unavailable", message, field=field, expected=expected, reason=reason)
