"""Which server: `valkey://user@host:6379/0`."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from modelyard.core.errors import SettingsError

DEFAULT_PORT = 6379


class Location(msgspec.Struct, frozen=True):
    """A server, and the number of the database in it; `user` is "" where the password alone is asked for."""

    host: str
    port: int
    user: str
    database: int
    tls: bool

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
        tls = parts.scheme in ("rediss", "valkeys")
        return cls(parts.hostname or "", port, unquote(parts.username or ""), int(parts.path.strip("/") or 0), tls)

    def shown(self) -> str:
        """For people: where it is, and who asks is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"
