"""Which server: `valkey://user@host:6379/0`, or `iam://user@host:6379/cache` for one that takes tokens of IAM."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from modelyard.core.errors import SettingsError

DEFAULT_PORT = 6379
IAM = "iam"
_SERVERLESS = ".serverless."


class Location(msgspec.Struct, frozen=True):
    """A server, and the number of the database in it; `user` is "" where the password alone is asked for. `cache` is
    the name of the replication group or serverless cache that tokens are made for, "" where there is a password."""

    host: str
    port: int
    user: str
    database: int
    tls: bool
    cache: str = ""

    @classmethod
    def parse(cls, url: str) -> Location:
        """From a `limits.url` that the settings have checked; SettingsError("setting_invalid") for a port that cannot
        be."""
        parts = urlsplit(url)
        try:
            port = parts.port or DEFAULT_PORT
        except ValueError:
            raise SettingsError(
                "setting_invalid",
                "The setting `limits.url` names a port beyond 65535.",
                field="limits.url",
                expected="a port from 1 to 65535",
            ) from None
        host, user, path = parts.hostname or "", unquote(parts.username or ""), parts.path.strip("/")
        if parts.scheme == IAM:  # ElastiCache takes tokens over TLS alone, and so do we
            return cls(host, port, user, 0, True, path)
        return cls(host, port, user, int(path or 0), parts.scheme in ("rediss", "valkeys"))

    @property
    def serverless(self) -> bool:
        """Whether it is a serverless cache, by its host's name; its tokens say so."""
        return _SERVERLESS in self.host

    def shown(self) -> str:
        """For people: where it is, and who asks is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"
