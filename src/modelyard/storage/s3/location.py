"""Where in which bucket: `s3://bucket/prefix`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

_ACCOUNT = re.compile(r"\d{12}")


class Location(msgspec.Struct, frozen=True):
    """A bucket and the prefix of all our keys in it, without a slash at its ends."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Location:
        """From an `artifacts.url` that the settings have checked."""
        parts = urlsplit(url)
        return cls(parts.netloc, parts.path.strip("/"))

    def key(self, digest: str, path: str) -> str:
        """The key of one file of a version; the layout is that of the folder store, so that one can be copied to the
        other as it is."""
        return "/".join(filter(None, (self.prefix, digest[:2], digest, path)))

    def shown(self) -> str:
        """For people: many name their buckets after the account, whose number is nobody else's business."""
        return _ACCOUNT.sub("…", f"s3://{self.bucket}/{self.prefix}".rstrip("/"))
