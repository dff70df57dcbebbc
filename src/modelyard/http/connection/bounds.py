"""The bounds of a request, each with its setting, and how they are said when a request is over one (promise P4)."""

from __future__ import annotations

from modelyard.core.errors import DeadlineError, InvalidRequestError, ModelyardError, OverloadError, TooLargeError
from modelyard.core.settings import HttpSettings


def head_bound(settings: HttpSettings) -> int:
    """Bytes after which a head that has not ended is refused, whatever it holds."""
    return settings.max_header_bytes + settings.max_url_bytes + 4 * settings.max_headers


def head_error(
    settings: HttpSettings, url: bytes, headers: list[tuple[bytes, bytes]], head_bytes: int
) -> ModelyardError | None:
    """What is wrong with a complete head as a whole; `head_bytes` is at least its size."""
    if len(url) > settings.max_url_bytes:
        return TooLargeError(
            "url_too_long",
            f"The request target is longer than {settings.max_url_bytes} bytes.",
            field="http.max_url_bytes",
            expected=settings.max_url_bytes,
            got=len(url),
        )
    if len(headers) > settings.max_headers:
        return headers_too_large(settings)
    if head_bytes > settings.max_header_bytes and sum(len(n) + len(v) for n, v in headers) > settings.max_header_bytes:
        return headers_too_large(settings)
    for name, value in headers:
        # A coding that we do not undo, before `chunked`: the parser frames the body by `chunked` alone, another reader
        # may not (RFC 9112, 6.1 and 11.2).
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return not_http()
    return None


def headers_too_large(settings: HttpSettings) -> ModelyardError:
    """Too many header fields, or too many bytes of them."""
    return TooLargeError(
        "headers_too_large",
        f"The request has more than {settings.max_headers} header fields or {settings.max_header_bytes} bytes of them.",
        field="http.max_header_bytes",
        expected=settings.max_header_bytes,
    )


def not_http() -> ModelyardError:
    """Bytes that are no request."""
    return InvalidRequestError("http_invalid", "The request is not valid HTTP/1.1.", field="request")


def too_many_chunks(bound: int) -> ModelyardError:
    """A body in too many chunks."""
    return TooLargeError(
        "too_many_chunks", f"The body has more than {bound} chunks.", field="http.max_chunks", expected=bound
    )


def inflight_bytes_exceeded() -> ModelyardError:
    """The worker holds as many bodies as it may."""
    return OverloadError(
        "inflight_bytes_exceeded",
        "The server holds too many request bodies; nothing was done.",
        retry_after_s=1.0,
        field="http.max_inflight_bytes",
    )


def body_too_large(bound: int, got: int) -> ModelyardError:
    """A body over the bound."""
    return TooLargeError(
        "body_too_large",
        f"The body is larger than {bound} bytes.",
        field="http.max_body_bytes",
        expected=bound,
        got=got,
    )


def receive_timeout(part: str, timeout_s: float) -> ModelyardError:
    """A caller that sends too slowly."""
    return DeadlineError(
        "receive_timeout",
        f"The request's {part} did not arrive within {timeout_s:g} s.",
        field=f"http.{part}_timeout_s",
        expected=timeout_s,
    )


def too_many_connections() -> ModelyardError:
    """A connection over the bound."""
    return OverloadError("server_busy", "The server has too many connections.", retry_after_s=1.0)
