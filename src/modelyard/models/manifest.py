"""The manifest: everything that is known of one version, content-addressed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.core.types import Signature


class FileEntry(msgspec.Struct, frozen=True):
    """One file of a version; `path` is relative, with `/`, inside the version's folder."""

    path: str
    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """One version. `format` names the runtime ("onnx", "sklearn", …); `entry` is the file it loads first.

    `example` is a request in the Open Inference Protocol's JSON form; `metrics` are the owner's training metrics;
    `provenance` is free text by name; `redaction` names the columns whose values the log must not hold, alone or each
    with its rule (core/redaction.py). `signer` is the id of the key that signed the files (models/signing). Of a
    bundle of OpenSSF model signing `signing_method` says which kind, and `signing_authority` is the id of the key of
    the trusted certificate behind it. A manifest without one has no such field, and the digest that it had before
    there were any.
    """

    format: str
    entry: str
    files: tuple[FileEntry, ...]
    signature: Signature
    example: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = {}
    provenance: Mapping[str, str] = {}
    limits: Mapping[str, Any] = {}
    redaction: tuple[str, ...] | Mapping[str, str] = ()
    schema: int = 1
    signer: str | msgspec.UnsetType = msgspec.UNSET
    signing_method: str | msgspec.UnsetType = msgspec.UNSET
    signing_authority: str | msgspec.UnsetType = msgspec.UNSET

    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the manifest; names the version's content."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def content_digest(self) -> str:
        """SHA-256 (hex) over the files alone: equal for the same bytes published with other words around them."""
        return hashlib.sha256(msgspec.json.encode(sorted((f.path, f.sha256) for f in self.files))).hexdigest()
