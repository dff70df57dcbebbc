"""The exact limit of several hosts, in Valkey or Redis: a script for each client, all of them in one round trip.

One connection, on which exchanges follow each other. The script runs by its hash; a server that does not know it (a
new one, or one whose scripts were flushed) is sent its text. An exchange on a connection that turns out to be closed is
tried once more on a new one, without what it gave back of quotas: a server, or something between, closes what is idle.
Should the first have been counted all the same, the client gets less for a moment, never more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr
from valkey import exceptions as vendor
from valkey.asyncio import Connection, SSLConnection

from modelyard.limits.ports import QuotaShare, RateAsk, RateDecision
from modelyard.storage.valkey.iam import TokenLogin
from modelyard.storage.valkey.location import Location
from modelyard.storage.valkey.refusals import refusal

SCRIPT = Path(__file__).with_name("gcra.lua").read_text()
RATE, QUOTA = "modelyard:rate:", "modelyard:quota:"
MOST_NS = 1 << 52
"""The longest burst that the script can count exactly, 52 days. Rates go up to 31."""

CLOSE_WITHIN_S = 1.0

Command = tuple[str | int, ...]


class ValkeyCounter:
    """limits.ports.RemoteCounter. `script` is what counts; a test's may have a clock of its own."""

    def __init__(
        self,
        location: Location,
        login: SecretStr | TokenLogin | None = None,
        tls_ca: Path | None = None,
        script: str = SCRIPT,
    ) -> None:
        """`login` is the password, or makes one for each connection."""
        self._location = location
        self._renew = login.renew if isinstance(login, TokenLogin) else None
        self._script = script
        self._hash = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._connection = _connection(location, login, tls_ca)

    async def take(self, asks: Sequence[RateAsk]) -> Sequence[RateDecision]:
        """See RemoteCounter."""
        commands = [command_of(ask) for ask in asks]
        try:
            was_open = self._connection.is_connected
            try:
                replies = await self._run(commands)
            except vendor.ConnectionError:
                if not was_open:
                    raise
                await self._connection.disconnect(nowait=True)
                replies = await self._run([command_of(_once_more(ask)) for ask in asks])
        except (vendor.ValkeyError, OSError, ValueError) as error:
            await self._connection.disconnect(nowait=True)
            raise refusal(error, self._location) from None
        except BaseException:
            await self._connection.disconnect(nowait=True)
            raise
        return [decision_of(ask, *reply) for ask, reply in zip(asks, replies, strict=True)]

    async def close(self) -> None:
        """See RemoteCounter. TLS says goodbye; who does not answer that is left."""
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._connection.disconnect()

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to the script's runs. The first error of the server is raised: the others may be counted, as
        after a lost answer."""
        replies = await self._exchange([("EVALSHA", self._hash, *command) for command in commands])
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, vendor.NoScriptError)]
        if unknown:
            again = await self._exchange([("EVAL", self._script, *commands[n]) for n in unknown])
            for n, reply in zip(unknown, again, strict=True):
                replies[n] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        if self._renew is not None and not connection.is_connected:
            await self._renew()
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except vendor.ResponseError as error:
                replies.append(error)
        return replies


def command_of(ask: RateAsk) -> Command:
    """The script's keys and arguments. A client's keys are in one slot of a cluster."""
    interval_ns = _interval_ns(ask)
    rate = (interval_ns, _depth_ns(ask, interval_ns), ask.count)
    key = f"{RATE}{{{ask.client_id}}}"
    if ask.quota_per_day is None:
        return 1, key, *rate
    quota = (ask.quota_per_day, ask.quota_day, ask.quota_kept, ask.quota_correction)
    return 2, key, f"{QUOTA}{{{ask.client_id}}}", *rate, *quota


def decision_of(ask: RateAsk, passed: int, spent_ns: int, *quota: int) -> RateDecision:
    """What the script's answer means; in the terms of limits.gcra."""
    interval_ns = _interval_ns(ask)
    depth_ns = _depth_ns(ask, interval_ns)
    return RateDecision(
        passed,
        ask.burst,
        (depth_ns - spent_ns) // interval_ns,
        spent_ns / 1e9,
        0.0 if passed == ask.count else (spent_ns + interval_ns - depth_ns) / 1e9,
        QuotaShare(*quota) if quota else None,
    )


def _once_more(ask: RateAsk) -> RateAsk:
    """An ask that may have been counted already. What it gave back of a quota is not given back twice."""
    return ask if ask.quota_correction >= 0 else msgspec.structs.replace(ask, quota_correction=0)


def _interval_ns(ask: RateAsk) -> int:
    return int(ask.interval_s * 1e9 + 0.5) or 1


def _depth_ns(ask: RateAsk, interval_ns: int) -> int:
    return min(interval_ns * ask.burst, MOST_NS)


def _connection(location: Location, login: SecretStr | TokenLogin | None, tls_ca: Path | None) -> Connection:
    """Every wait of it is bounded by whoever calls: `limits.timeout_ms` cancels."""
    known: dict[str, Any] = {
        "host": location.host,
        "port": location.port,
        "db": location.database,
        **_signed_in(location, login),
        "socket_timeout": None,
        "socket_keepalive": True,
        # Who may only run scripts may not say its name.
        "lib_name": None,
        "lib_version": None,
    }
    if not location.tls:
        return Connection(**known)
    return SSLConnection(ssl_check_hostname=True, ssl_ca_certs=None if tls_ca is None else str(tls_ca), **known)


def _signed_in(location: Location, login: SecretStr | TokenLogin | None) -> dict[str, Any]:
    if isinstance(login, TokenLogin):
        return {"credential_provider": login}
    return {"username": location.user or None, "password": None if login is None else login.get_secret_value()}
