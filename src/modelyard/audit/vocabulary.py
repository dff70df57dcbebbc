"""Everything that the audit log can say."""

from __future__ import annotations

from enum import StrEnum


class AuditAction(StrEnum):
    """What was done, as `subject:action`. Add a member before recording a new change."""

    CLIENT_CREATE = "client:create"
    """A client exists; `after` holds its limits."""
    CLIENT_CHANGE = "client:change"
    """A client's limits changed."""
    KEY_CREATE = "key:create"
    """A key was issued; `after` holds its scopes, models and expiry, never its text or hash."""
    KEY_CHANGE = "key:change"
    """A key's models, limits or expiry changed."""
    KEY_ROTATE = "key:rotate"
    """A key got a successor."""
    KEY_REVOKE = "key:revoke"
    """A key was ended."""
    VERSION_PUBLISH = "version:publish"
    """A version exists; `after` holds its digest."""
    VERSION_RETIRE = "version:retire"
    """A version is not served any more."""
    VERSION_UNHEALTHY = "version:unhealthy"
    """The server took a version out because workers died in its runs; `after` holds how many."""
    VERSION_REVIVE = "version:revive"
    """A version that was marked unhealthy may be loaded again."""
    TRAFFIC_SET = "traffic:set"
    """An endpoint's shares were replaced."""
    SERVER_START = "server:start"
    """A server started on this data; `after` names program version and machine."""
    SERVER_STOP = "server:stop"
    """A server ended in order."""
    SETTINGS_CHANGE = "settings:change"
    """A server started with other settings than the one before; only those that differ are named."""
    REQUEST_REFUSE = "request:refuse"
    """Requests were refused (401, 403, 429): one event a minute for each caller and status, with their number."""
    AUDIT_ANCHOR = "audit:anchor"
    """The head file was missing beside a log that has events; it was made again."""
