"""Whose signature counts here: those of `models.trusted_signers`, and what is asked of a version.

A version is signed by its `modelyard.sig` or, where it has none, by its `model.sig`, a bundle of OpenSSF model signing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelyard.core.errors import PublishError, SettingsError
from modelyard.core.settings import ModelsSettings
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.signing.openssf.bundle import MAX_BUNDLE_BYTES, examine_bundle, refused
from modelyard.models.signing.openssf.coverage import BUNDLE_FILE
from modelyard.models.signing.statement import MAX_SIGNATURE_BYTES, SIGNATURE_FILE, signers
from modelyard.models.signing.trusted import TrustedSigners, trusted_signers


class Signed(msgspec.Struct, frozen=True):
    """What was found of a version's signature: the id of the key that counts (None: it is not signed), and whether this
    installation trusts it. `method` and `authority` are of bundles alone (models/signing/openssf)."""

    signer: str | None = None
    trusted: bool = False
    method: str | None = None
    authority: str | None = None

    @property
    def file(self) -> str | None:
        """The file of the version that holds the signature."""
        if self.signer is None:
            return None
        return SIGNATURE_FILE if self.method is None else BUNDLE_FILE


class Trust:
    """Those who are trusted, and whether every version must be signed by one of them."""

    def __init__(self, trusted: TrustedSigners | Iterable[str] = (), required: bool = False) -> None:
        self._known = trusted if isinstance(trusted, TrustedSigners) else TrustedSigners(frozenset(trusted))
        self._required = required

    @classmethod
    def of(cls, models: ModelsSettings) -> Trust:
        """As the settings say; SettingsError("setting_invalid") for a key that cannot be read, or where signatures
        are required and no signer is trusted."""
        trusted = trusted_signers(models.trusted_signers)
        if models.require_signature and not trusted.ids:
            raise SettingsError(
                "setting_invalid",
                "models.require_signature is on, but models.trusted_signers names nobody.",
                field="models.trusted_signers",
                expected="at least one public key or certificate",
            )
        return cls(trusted, models.require_signature)

    def examine(self, content: bytes | None, files: Iterable[FileEntry]) -> Signed:
        """What the signature file (None: there is none) says of these files. PublishError: signature_invalid, whoever
        made it; signature_missing and signer_unknown where a signature is required."""
        if content is None:
            if self._required:
                raise missing("models.require_signature is on")
            return Signed()
        found = signers(content, files)
        known = next((one for one in found if one in self._known.ids), None)
        if known is None and self._required:
            raise unknown(found[0])
        return Signed(known or found[0], known is not None)

    def examine_bundle(self, content: bytes, files: Iterable[FileEntry], at: float | None = None) -> Signed:
        """What a bundle says of these files; `at` is the moment of a publish (UNIX seconds). PublishError:
        signature_invalid; signer_unknown at a publish, and at a load where a signature is required: a bundle of
        somebody who is not trusted cannot be checked, and must not look as if it had been."""
        found = examine_bundle(content, files, self._known, at)
        if not found.trusted and (at is not None or self._required):
            raise refused(found)
        return Signed(found.signer, found.trusted, found.method, found.authority)

    def examine_folder(self, folder: Path, files: Iterable[FileEntry], at: float | None = None) -> Signed:
        """The same for a version's folder, whose files were held to their manifest."""
        entries = tuple(files)
        listed = {entry.path for entry in entries}
        if SIGNATURE_FILE in listed:
            return self.examine(_head(folder / SIGNATURE_FILE, MAX_SIGNATURE_BYTES), entries)
        if BUNDLE_FILE in listed:
            return self.examine_bundle(_head(folder / BUNDLE_FILE, MAX_BUNDLE_BYTES), entries, at)
        return self.examine(None, entries)

    def examine_version(self, folder: Path, manifest: Manifest) -> Signed:
        """The same at a load. A `model.sig` that was an ordinary file when its version was published stays one, where
        no signature is required."""
        named = manifest.signer is not msgspec.UNSET or any(entry.path == SIGNATURE_FILE for entry in manifest.files)
        if not named and not self._required:
            return Signed()
        return self.examine_folder(folder, manifest.files)


def demand_trusted(signed: Signed, why: str) -> None:
    """PublishError("signature_missing" | "signer_unknown") unless a trusted key signed; `why` begins the sentence."""
    if signed.signer is None:
        raise missing(why)
    if not signed.trusted:
        raise unknown(signed.signer)


def missing(why: str) -> PublishError:
    """The version is not signed and must be."""
    return PublishError(
        "signature_missing",
        f"The version is not signed, and {why}: sign it with `modelyard sign`, or publish it with `--sign KEY`.",
        field=SIGNATURE_FILE,
        expected="a signature of one of models.trusted_signers",
        example="modelyard publish NAME FOLDER --sign signer.pem",
    )


def unknown(signer: str) -> PublishError:
    """It is signed, but by nobody who is trusted here."""
    return PublishError(
        "signer_unknown",
        "The version is signed by a key that is not trusted here.",
        field="models.trusted_signers",
        expected="a signature of one of models.trusted_signers",
        got=signer,
    )


def _head(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)
