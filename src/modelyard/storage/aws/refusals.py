"""What the vendor's errors say, without the vendor's text: it may hold hosts, account numbers, users, parts of keys."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")


def code_of(error: Exception) -> str:
    """The service's code word of a refusal, "" if it is none."""
    answer: Any = getattr(error, "response", None)
    code = str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
    return code if _CODE.fullmatch(code) else ""


def status_of(error: Exception) -> int:
    """The answer's HTTP status, 0 if there was no answer."""
    answer: Any = getattr(error, "response", None)
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(answer, dict) else 0


def lacks_credentials(error: Exception) -> bool:
    """Whether no credentials were found, or none that are complete."""
    from botocore import exceptions as vendor

    return isinstance(
        error,
        vendor.NoCredentialsError
        | vendor.PartialCredentialsError
        | vendor.CredentialRetrievalError
        | vendor.TokenRetrievalError
        | vendor.SSOError
        | vendor.ProfileNotFound,
    )
