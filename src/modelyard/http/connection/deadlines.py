"""How long a connection may wait for its caller: one sweep for all connections, not a timer each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.core.errors import ModelyardError
from modelyard.http.connection.bounds import receive_timeout

if TYPE_CHECKING:
    from modelyard.http.connection.protocol import PredictProtocol

IDLE, IN_HEAD, IN_BODY = 0, 1, 2
"""Where the parser is: between messages, in a head, in a body."""
LINGER_S = 2.0
"""How long a refused caller may go on sending before the socket is closed under it: closed at once, the kernel
would answer its unread bytes with a reset, and the refusal would be lost (RFC 9112, section 9.6)."""


def overdue(connection: PredictProtocol, now: float) -> ModelyardError | None:
    """Closes a connection that waited too long for its caller; or the refusal of what is half received."""
    settings, waited_s = connection.shared.settings, now - connection.since
    if connection.lingering and waited_s > LINGER_S:
        connection.transport.close()
    if connection.transport.is_closing():
        if waited_s > settings.body_timeout_s:
            connection.transport.abort()
    elif connection.stalled_since is not None:
        if now - connection.stalled_since > settings.body_timeout_s:
            connection.transport.abort()
    elif connection.phase == IN_HEAD and waited_s > settings.header_timeout_s:
        return receive_timeout("header", settings.header_timeout_s)
    elif connection.phase == IN_BODY and waited_s > settings.body_timeout_s and not connection.flow.read_paused:
        return receive_timeout("body", settings.body_timeout_s)
    elif connection.idle and waited_s > settings.keep_alive_s:
        connection.transport.close()
    return None
