"""`database.url` as it may be written: a URL, one whose password is a reference, a reference to a whole URL, or
`iam://user@host:port/database`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from modelyard.core.errors import SettingsError
from modelyard.storage.login.aws import AwsSecrets, RdsTokens, Secrets, Tokens
from modelyard.storage.login.references import Reference, reference_of
from modelyard.storage.sql.dialects import parse_url

FIELD = "database.url"
IAM = "iam"
AGAIN_AFTER_S = 5.0
"""A secret is read again for a refused login no more often than this."""
_MYSQL_PORT, _POSTGRESQL_PORT = 3306, 5432
_REFUSED_STATES = ("28P01", "28000")
_REFUSED_TEXTS = ("authentication failed", "Access denied")


class Login(Protocol):
    """What a new connection signs in with. Safe for threads."""

    def given(self) -> Mapping[str, str]:
        """`user` and `password`, as far as the URL does not say them. Raises what its source raises."""

    def renew(self, since_s: float) -> bool:
        """After a refusal of an attempt that began at `since_s` (monotonic seconds): whether there is something else
        by now that is worth a try."""


class TokenLogin:
    """A token for each connection."""

    def __init__(self, url: URL, tokens: Tokens) -> None:
        self._place = (url.host or "", url.port or _POSTGRESQL_PORT, url.username or "")
        self._tokens = tokens

    def given(self) -> Mapping[str, str]:
        """A fresh one."""
        return {"password": self._tokens.make(*self._place)}

    def renew(self, since_s: float) -> bool:
        """It was fresh already."""
        return False


class SecretLogin:
    """A secret that is read once, and again when the database refuses it: it may have been changed meanwhile."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, str]],
        first: Mapping[str, str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._given = first
        self._monotonic = monotonic
        self._next_s = 0.0
        self._changed_s = -math.inf
        self._lock = threading.Lock()

    def given(self) -> Mapping[str, str]:
        """As it was read last."""
        return self._given

    def renew(self, since_s: float) -> bool:
        """Reads it, if that was not done a moment ago; whether it is another one, by whoever read it."""
        with self._lock:
            if self._changed_s >= since_s:  # read while this attempt was under way
                return True
            now_s = self._monotonic()
            if now_s < self._next_s:
                return False
            self._next_s = now_s + AGAIN_AFTER_S
            before, self._given = self._given, self._read()
            changed = self._given != before
            self._changed_s = self._monotonic() if changed else self._changed_s
            return changed


def login_of(
    text: str, timeout_s: float, secrets: Secrets | None = None, tokens: Tokens | None = None
) -> tuple[URL, Login | None]:
    """The database's URL and how to sign in; None where the URL says all there is.

    SettingsError("setting_invalid"), UnavailableError("store_unavailable") if a secret cannot be read.
    """
    secrets, tokens = secrets or AwsSecrets(timeout_s), tokens or RdsTokens(timeout_s)
    whole = reference_of(text, FIELD)
    url = parse_url(text if whole is None else secrets.read(whole))
    if url.drivername == IAM:
        return _signed(url), TokenLogin(url, tokens)
    bare = url.set(password=None)
    if whole is not None:
        return bare, SecretLogin(lambda: _credentials(parse_url(secrets.read(whole))), _credentials(url))
    part = reference_of(url.password or "", FIELD) if isinstance(url.password, str) else None
    if part is None:
        return url, None
    return bare, SecretLogin(lambda: _password(secrets, part), _password(secrets, part))


def login_refused(error: BaseException | None) -> bool:
    """Whether a database refuses user or password. What a refused connection says has no SQLSTATE in libpq."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return state in _REFUSED_STATES or any(text in str(error.orig) for text in _REFUSED_TEXTS)


def _signed(url: URL) -> URL:
    """The database behind a login by IAM: infra/ tells PostgreSQL and MySQL apart by their ports."""
    if not url.host or not url.username:
        raise SettingsError(
            "setting_invalid",
            "The setting `database.url` names no user or no host to sign in at.",
            field=FIELD,
            expected="iam://user@host:port/database",
        )
    return url.set(drivername="mysql" if url.port == _MYSQL_PORT else "postgresql", password=None)


def _password(secrets: Secrets, reference: Reference) -> Mapping[str, str]:
    return {"password": secrets.read(reference)}


def _credentials(url: URL) -> Mapping[str, str]:
    named = {"user": url.username, "password": None if url.password is None else str(url.password)}
    return {name: value for name, value in named.items() if value is not None}
