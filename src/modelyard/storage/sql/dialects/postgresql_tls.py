"""Why a server's certificate is refused: libpq says "certificate verify failed", whatever the reason is."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any

import psycopg

_PORT = 5432
_SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)
"""PostgreSQL's frontend protocol, SSLRequest: length and code; the answer is one byte, S for yes."""
_UNPROVEN = "certificate verify failed"
_OUT_OF_DATE = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class CertificateOutOfDateError(psycopg.OperationalError):
    """The certificate would be good at another time."""


def explained(error: psycopg.OperationalError, named: Mapping[str, Any], timeout_s: float) -> psycopg.OperationalError:
    """The same refusal, or CertificateOutOfDateError: after one that speaks of the certificate the server is asked for
    it a second time. `named` is what libpq was given; `timeout_s` bounds each wait."""
    if _UNPROVEN in str(error) and _verify_code(named, timeout_s) in _OUT_OF_DATE:
        return CertificateOutOfDateError("certificate out of date")
    return error


def _verify_code(named: Mapping[str, Any], timeout_s: float) -> int | None:
    """OpenSSL's reason; None where it cannot be had."""
    host, root = str(named.get("host") or ""), named.get("sslrootcert")
    try:
        context = ssl.create_default_context(cafile=None if root in (None, "system") else root)
        context.check_hostname = False
        address = (str(named.get("hostaddr") or host), int(named.get("port") or _PORT))
        with socket.create_connection(address, timeout_s) as raw:
            raw.sendall(_SSL_REQUEST)
            if raw.recv(1) == b"S":
                context.wrap_socket(raw, server_hostname=host or None).close()
    except ssl.SSLCertVerificationError as refused:
        return refused.verify_code
    except (OSError, ValueError):
        return None
    return None
