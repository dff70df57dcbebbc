"""What AWS is asked for a login: secrets, and tokens for RDS. Every wait is bounded; what is refused is said in our
words: AWS's own text may hold account numbers and names."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import orjson

from modelyard.core.errors import ModelyardError, SettingsError, UnavailableError
from modelyard.storage.aws.client import is_private
from modelyard.storage.login.references import Reference

RETRY_AFTER_S = 5.0
_ATTEMPTS = 2
_REGION_OF_HOST = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-\d)\.rds\.amazonaws\.com(?:\.cn)?$")
_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_CALLS = {
    "aws-sm": ("secretsmanager", "secretsmanager:GetSecretValue"),
    "aws-ssm": ("ssm", "ssm:GetParameter"),
}


class Secrets(Protocol):
    """Where secrets are kept."""

    def read(self, reference: Reference) -> str:
        """The secret as it is now; SettingsError("setting_invalid"), UnavailableError("store_unavailable")."""


class Tokens(Protocol):
    """Who makes passwords that are good for minutes."""

    def make(self, host: str, port: int, user: str) -> str:
        """A new one for this login; SettingsError("setting_invalid"), UnavailableError("store_unavailable")."""


class AwsSecrets:
    """Secrets of Secrets Manager and Systems Manager. Safe for threads; each answer is waited for `timeout_s` at
    most, twice."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def read(self, reference: Reference) -> str:
        """See Secrets."""
        service, action = _CALLS[reference.service]
        with _in_our_words("The secret that `database.url` refers to", action):
            client = _client(service, reference.region, self._timeout_s)
            if service == "ssm":
                text = client.get_parameter(Name=reference.name, WithDecryption=True)["Parameter"]["Value"]
            else:
                text = client.get_secret_value(SecretId=reference.name).get("SecretString", "")
        return _part(str(text), reference.key)


class RdsTokens:
    """Tokens that RDS takes for fifteen minutes, signed here with this machine's credentials."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._made: Any = None
        self._pid = 0

    def make(self, host: str, port: int, user: str) -> str:
        """See Tokens."""
        found = _REGION_OF_HOST.search(host)
        with _in_our_words("The token for `database.url`", "rds-db:connect"):
            token = self._client(found[1] if found else None).generate_db_auth_token(host, port, user)
        return str(token)

    def _client(self, region: str | None) -> Any:
        with self._lock:
            if self._pid != os.getpid():
                self._made, self._pid = _client("rds", region, self._timeout_s), os.getpid()
            return self._made


def _client(service: str, region: str | None, timeout_s: float) -> Any:
    try:
        import boto3
    except ImportError:
        raise SettingsError(
            "setting_invalid",
            "A login by AWS needs an extra: pip install 'modelyard[aws]'.",
            field="database.url",
            expected="modelyard[aws] installed, or a URL with its password",
        ) from None
    from botocore.config import Config

    config = Config(
        connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"}
    )
    region = region or os.environ.get("AWS_REGION")
    client = boto3.session.Session(region_name=region).client(service, config=config)
    if not is_private(client.meta.endpoint_url):
        raise SettingsError(
            "setting_invalid",
            "Secrets would travel in the clear: AWS_ENDPOINT_URL names an address without TLS.",
            field="AWS_ENDPOINT_URL",
            expected="an address that begins with https://",
        )
    return client


def _part(text: str, key: str | None) -> str:
    """The secret itself, or one text of the object that it is."""
    if key is None and text:
        return text
    try:
        found = orjson.loads(text)[key] if text else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        found = None
    if not isinstance(found, str) or not found:
        raise UnavailableError(
            "store_unavailable",
            "The secret that `database.url` refers to holds no such text: write it, or look at the reference's key.",
            retry_after_s=RETRY_AFTER_S,
            field="database.url",
        )
    return found


@contextmanager
def _in_our_words(what: str, action: str) -> Iterator[None]:
    try:
        yield
    except ModelyardError:
        raise
    except Exception as error:
        raise _refusal(error, what, action) from None


def _credentials_missing() -> tuple[type[Exception], ...]:
    from botocore import exceptions as vendor

    return vendor.NoCredentialsError, vendor.PartialCredentialsError, vendor.CredentialRetrievalError


def _refusal(error: Exception, what: str, action: str) -> ModelyardError:
    from botocore import exceptions as vendor

    if not isinstance(error, vendor.BotoCoreError | vendor.ClientError):
        raise error
    answer: Any = getattr(error, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    if isinstance(error, vendor.NoRegionError):
        why = "no region is known: set AWS_REGION"
    elif isinstance(error, _credentials_missing()):
        why = "this machine has no AWS credentials: give it a role"
    elif code in ("ResourceNotFoundException", "ParameterNotFound"):
        why = "there is none of this name"
    elif code in ("AccessDeniedException", "AccessDenied"):
        why = f"the permission {action} (or kms:Decrypt of its key) is missing"
    elif _CODE.fullmatch(code):
        why = f"AWS answers {code}"
    else:
        why = "AWS does not answer"
    message = f"{what} cannot be had: {why}."
    return UnavailableError("store_unavailable", message, retry_after_s=RETRY_AFTER_S, field="database.url")
