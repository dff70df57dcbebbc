"""Whose signature counts here: the keys of `models.trusted_signers`, and what is asked of a version."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec

from modelyard.core.errors import PublishError, SettingsError
from modelyard.core.settings import ModelsSettings
from modelyard.models.manifest import FileEntry
from modelyard.models.signing.keys import LINE, MAX_PEM_BYTES, key_id, read_public
from modelyard.models.signing.statement import MAX_SIGNATURE_BYTES, SIGNATURE_FILE, signers

BEGINNING = "-----BEGIN"


class Signed(msgspec.Struct, frozen=True):
    """What was found of a version's signature: the id of the key that counts (None: it is not signed), and whether this
    installation trusts it."""

    signer: str | None = None
    trusted: bool = False


class Trust:
    """The keys that are trusted, by id, and whether every version must be signed by one of them."""

    def __init__(self, trusted: Iterable[str] = (), required: bool = False) -> None:
        self.trusted = frozenset(trusted)
        self._required = required

    @classmethod
    def of(cls, models: ModelsSettings) -> Trust:
        """As the settings say; SettingsError("setting_invalid") for a key that cannot be read, or where signatures
        are required and no signer is trusted."""
        trusted = trusted_ids(models.trusted_signers)
        if models.require_signature and not trusted:
            raise SettingsError(
                "setting_invalid",
                "models.require_signature is on, but models.trusted_signers names nobody.",
                field="models.trusted_signers",
                expected="at least one public key",
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
        known = next((one for one in found if one in self.trusted), None)
        if known is None and self._required:
            raise unknown(found[0])
        return Signed(known or found[0], known is not None)

    def examine_folder(self, folder: Path, files: Iterable[FileEntry]) -> Signed:
        """The same for a version's folder, whose files were held to their manifest."""
        entries = tuple(files)
        listed = any(entry.path == SIGNATURE_FILE for entry in entries)
        return self.examine(_head(folder / SIGNATURE_FILE) if listed else None, entries)


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


@lru_cache(maxsize=8)
def trusted_ids(sources: tuple[str, ...]) -> frozenset[str]:
    """Ids of public keys that are given as PEM, as one line (`ed25519:…`), or by a file that holds either;
    SettingsError("setting_invalid")."""
    return frozenset(key_id(_public(source)) for source in sources)


def _public(source: str) -> bytes:
    given = source.strip()
    try:
        if given.startswith((LINE, BEGINNING)):
            return read_public(given)
        return read_public(_head(Path(given), MAX_PEM_BYTES).decode().strip())
    except OSError as error:
        why = (error.strerror or "it cannot be read").lower()
    except ValueError as error:  # a UnicodeDecodeError too
        why = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    shown = given if not given.startswith(BEGINNING) else "a PEM text"
    raise SettingsError(
        "setting_invalid",
        f"models.trusted_signers names `{shown[:200]}`, which is no Ed25519 public key: {why}.",
        field="models.trusted_signers",
        expected="a file with a public key in PEM, its text, or ed25519:BASE64",
        got=shown[:200],
    )


def _head(path: Path, most: int = MAX_SIGNATURE_BYTES) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)
