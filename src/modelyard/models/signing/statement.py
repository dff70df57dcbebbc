"""What is signed: the hashes of all files that an owner publishes, `modelyard.json` included.

The server adds what it finds out (signature of tensors, provenance) later, in the manifest, which lists the same hashes
under a digest of its own. So a version can be signed where it was trained, and checked again whenever it is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.core.errors import PublishError
from modelyard.models.manifest import FileEntry
from modelyard.models.signing.keys import KEY_BYTES, key_id, public_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_FILE = "modelyard.sig"
OVERRIDES_FILE = "modelyard.json"
MAX_SIGNATURE_BYTES = 64 * 1024
MAX_SIGNATURES = 16
LONE_NAME = "model"
"""What a file that is published alone is called here: its name does not matter, and changes on the way."""
DOMAIN = b"modelyard version 1\n"
"""What is signed begins so: a signature that was made for something else is none here."""


class OneSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signer's: the raw public key and the signature, each base64 in JSON."""

    public_key: bytes
    signature: bytes


class SignatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`modelyard.sig`. `digest` is SHA-256 (hex) of what was signed; it is there for people, and compared."""

    digest: str
    signatures: tuple[OneSignature, ...]
    schema: int = 1


def named_content(files: Iterable[FileEntry]) -> list[tuple[str, str]]:
    """Path and SHA-256 of every file, sorted; a model of one file is called LONE_NAME."""
    entries = list(files)
    model = [entry for entry in entries if entry.path not in (SIGNATURE_FILE, OVERRIDES_FILE)]
    lone = model[0].path if len(model) == 1 else None
    return sorted((LONE_NAME if entry.path == lone else entry.path, entry.sha256) for entry in entries)


def signed_digest(files: Iterable[FileEntry]) -> str:
    """SHA-256 (hex) of the canonical JSON of all files but the signature's own."""
    content = [pair for pair in named_content(files) if pair[0] != SIGNATURE_FILE]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def sign(files: Iterable[FileEntry], *keys: Ed25519PrivateKey) -> bytes:
    """The content of a signature file for these files."""
    digest = signed_digest(files)
    message = DOMAIN + digest.encode()
    signatures = tuple(OneSignature(public_bytes(key), key.sign(message)) for key in keys)
    return msgspec.json.format(msgspec.json.encode(SignatureFile(digest, signatures)), indent=1) + b"\n"


def signers(content: bytes, files: Iterable[FileEntry]) -> tuple[str, ...]:
    """Ids of the keys that signed these files, every one checked; PublishError("signature_invalid")."""
    found = _read(content)
    digest = signed_digest(files)
    if found.digest != digest:
        raise _invalid("the files are not those that were signed.", expected=found.digest[:64], got=digest)
    message = DOMAIN + digest.encode()
    return tuple(_checked(each, message) for each in found.signatures)


def _checked(each: OneSignature, message: bytes) -> str:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(each.public_key) != KEY_BYTES:
        raise _invalid(f"a public key has {KEY_BYTES} bytes.", expected=KEY_BYTES, got=len(each.public_key))
    try:
        Ed25519PublicKey.from_public_bytes(each.public_key).verify(each.signature, message)
    except (InvalidSignature, ValueError):
        raise _invalid("it was not made by the key that it names.", got=key_id(each.public_key)) from None
    return key_id(each.public_key)


def _read(content: bytes) -> SignatureFile:
    if len(content) > MAX_SIGNATURE_BYTES:
        raise _invalid(f"it is larger than {MAX_SIGNATURE_BYTES} bytes.")
    try:
        found = msgspec.json.decode(content, type=SignatureFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"{str(error)[:200]}.") from None
    if found.schema != 1 or not 1 <= len(found.signatures) <= MAX_SIGNATURES:
        raise _invalid(f"it must be of schema 1 and hold 1 to {MAX_SIGNATURES} signatures.")
    return found


def _invalid(why: str, **detail: Any) -> PublishError:
    return PublishError("signature_invalid", f"The signature does not hold: {why}", field=SIGNATURE_FILE, **detail)
