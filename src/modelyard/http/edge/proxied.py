"""Behind a proxy: whose request it is, and under which prefix it came."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from modelyard.core.settings import HttpSettings
from modelyard.http.wire import Target, TargetCache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Any, Any], Awaitable[None]]
FORWARDED = b"x-forwarded-for"


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks of `http.trusted_proxies`; ValueError for what is none (the settings refuse it first)."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def client_address(peer: str, header: str | None, trusted: Sequence[Network]) -> str:
    """The address that a request came from: the rightmost one of `X-Forwarded-For` that is no trusted proxy's.

    `peer` is the other end of the connection, `header` the field's value (several fields joined with commas, in
    order). Whoever is not trusted can write what it likes into the header, so reading starts at the right, ends at
    the first address that is not trusted, and at anything that is no address: then the last trusted one is the
    answer. Ports and brackets are left out; an IPv4 address in IPv6 form counts as IPv4.
    """
    found = _address(peer)
    if header is None or found is None or not _is_trusted(found, trusted):
        return peer if found is None else str(found)
    for text in reversed(header.split(",")):
        before = _address(text)
        if before is None:
            break
        found = before
        if not _is_trusted(found, trusted):
            break
    return str(found)


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _address(text: str) -> Address | None:
    text = text.strip()
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Proxies:
    """The proxies of one server's settings."""

    def __init__(self, settings: HttpSettings) -> None:
        self._trusted = networks(settings.trusted_proxies)

    def address(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """`client_address` of a request's fields, names in lower case; cheap without trusted proxies."""
        if not self._trusted:
            return peer
        values = [value for name, value in headers if name == FORWARDED]
        return client_address(peer, b",".join(values).decode("latin-1") if values else None, self._trusted)


class PrefixedTargets(TargetCache):
    """Native targets under `http.root_path`, and without it: a proxy may take the prefix off, or leave it."""

    def __init__(self, root_path: str) -> None:
        super().__init__()
        self._prefix = root_path.encode("ascii")

    def native(self, url: bytes) -> Target | None:
        """As TargetCache says."""
        return super().native(url.removeprefix(self._prefix) if url.startswith(self._prefix + b"/") else url)


def native_targets(settings: HttpSettings) -> TargetCache:
    """What recognises native predict paths."""
    return PrefixedTargets(settings.root_path) if settings.root_path else TargetCache()


class Edge:
    """Around an ASGI application: takes the prefix off, and puts the caller's own address into `scope["client"]`.

    The prefix stays in `scope["root_path"]`, for links that lead back here.
    """

    def __init__(self, app: AsgiApp, settings: HttpSettings) -> None:
        self._app = app
        self._root = settings.root_path
        self._raw = settings.root_path.encode("ascii")
        self._proxies = Proxies(settings)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """The ASGI application."""
        if scope["type"] == "http":
            peer = scope.get("client")
            if peer is not None:
                address = self._proxies.address(peer[0], scope["headers"])
                if address != peer[0]:
                    scope["client"] = (address, 0)
            if self._root and scope["path"].startswith(self._root + "/"):
                scope["path"] = scope["path"].removeprefix(self._root)
                scope["raw_path"] = scope["raw_path"].removeprefix(self._raw)
                scope["root_path"] = self._root
        await self._app(scope, receive, send)
