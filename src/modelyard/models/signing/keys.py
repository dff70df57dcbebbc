"""Keys of those who sign versions: Ed25519 (RFC 8032), in PEM (RFC 8410) or as one line.

cryptography is imported when a key is read: a server without signatures does without it here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
"""Length of a seed and of a public key."""
LINE = "ed25519:"
"""A public key as one line begins so; base64 of its 32 bytes follows."""
MAX_PEM_BYTES = 16 * 1024
_SPKI_HEAD = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes in the DER form of a public key (RFC 8410, section 4)."""


def key_from_seed(seed: bytes) -> Ed25519PrivateKey:
    """The key of 32 random bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """PKCS 8, without a passphrase: keep the file private."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(public: bytes) -> bytes:
    """A public key's 32 bytes as PEM."""
    body = base64.b64encode(_SPKI_HEAD + public).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode()


def public_line(public: bytes) -> str:
    """The same as one line, for a setting or a variable."""
    return LINE + base64.b64encode(public).decode()


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public half."""
    return key.public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """SHA-256 (hex) of the public key's DER form: what `openssl pkey -pubin -outform DER | sha256sum` prints."""
    return hashlib.sha256(_SPKI_HEAD + public).hexdigest()


def read_private(pem: bytes) -> Ed25519PrivateKey:
    """An Ed25519 private key without a passphrase; ValueError says in words what it is instead."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("it has a passphrase, which cannot be given here") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it holds no private key in PEM form") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("its key is not of Ed25519")
    return key


def read_public(text: str) -> bytes:
    """The 32 bytes of a public key, from PEM or one line; ValueError says in words what it is instead."""
    if text.startswith(LINE):
        return _of_line(text[len(LINE) :].strip())
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it holds no public key in PEM form") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("its key is not of Ed25519")
    return key.public_bytes_raw()


def _of_line(text: str) -> bytes:
    try:
        public = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if len(public) != KEY_BYTES:
        raise ValueError(f"base64 of {KEY_BYTES} bytes must follow `{LINE}`")
    return public
