"""Where limits are counted, and whether it is counted there."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from modelyard.app.folder import DataFolder
from modelyard.cli.doctor.config import AREA
from modelyard.cli.doctor.findings import Finding, State, found, judged
from modelyard.cli.serve import is_loopback
from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import Settings
from modelyard.storage.counters import probe

IN_THE_CLEAR = ("redis", "valkey")


def limits(settings: Settings, folder: DataFolder) -> Iterator[Finding]:
    """The counter that hosts share is asked to count something of no client."""
    url = settings.limits.url
    if url is None:
        yield found(AREA, "limits", "counted by this host alone")
        return
    try:
        probe(settings.limits)
    except (SettingsError, UnavailableError) as error:
        said, _, remedy = error.message.rstrip(".").partition(": ")
        yield Finding(AREA, "limits", State.PROBLEM, f"{said}.", f"{remedy[:1].upper()}{remedy[1:]}.")
        return
    parts = urlsplit(url)
    open_to_see = parts.scheme in IN_THE_CLEAR and not is_loopback(parts.hostname or "")
    said = f"counted by {parts.scheme}://{parts.netloc.rpartition('@')[2]}, which counts"
    yield judged(AREA, "limits", said, not open_to_see, "Its network sees names and password: use rediss://.")
