"""Signing in to ElastiCache by IAM: the password is a request that is signed here, and never sent.

The request is `connect` of a user to a replication group or a serverless cache, presigned (AWS Signature Version 4, in
the query); the password is its address without the scheme ("Authenticating with IAM", ElastiCache User Guide). It is
good for fifteen minutes, and only at the moment of signing in: one is made for each new connection. ElastiCache closes
a connection after twelve hours; the next exchange then signs in anew.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from valkey.credentials import CredentialProvider

from modelyard.core.clock import Clock
from modelyard.core.errors import UnavailableError
from modelyard.storage.aws.refusals import lacks_credentials
from modelyard.storage.valkey.location import Location

EXPIRES_S = 900
_SERVICE = "elasticache"
_SCHEME = "https://"


class TokenLogin(CredentialProvider):
    """Tokens for one connection after another, signed with this machine's credentials; for one loop's thread."""

    def __init__(self, location: Location, clock: Clock) -> None:
        import botocore.session

        self._location = location
        self._now = clock.now
        self._session: Any = botocore.session.get_session()
        self._token = ""

    async def renew(self) -> None:
        """Makes a token for the connection that is about to be made; in a thread, as credentials may have to be
        fetched. UnavailableError("limits_unavailable")."""
        self._token = await asyncio.to_thread(self._make)

    def get_credentials(self) -> tuple[str, str]:
        """User and token."""
        return self._location.user, self._token

    def _make(self) -> str:
        from botocore.exceptions import BotoCoreError, NoCredentialsError, NoRegionError

        try:
            found = self._session.get_credentials()
            region = os.environ.get("AWS_REGION") or self._session.get_config_variable("region")
            if found is None:
                raise NoCredentialsError
            if region is None:
                raise NoRegionError
            return token(self._location, found.get_frozen_credentials(), region, self._now())
        except BotoCoreError as error:
            raise _refusal(error) from None


def token(location: Location, credentials: Any, region: str, now_s: float) -> str:
    """The password of `location.user` from `now_s` (UNIX seconds) on, for fifteen minutes. `credentials` are frozen
    ones of botocore."""
    from botocore.auth import SIGV4_TIMESTAMP, SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    class At(SigV4QueryAuth):  # type: ignore[misc]
        """Signs at our time; all that is signed after this takes it from there."""

        def _modify_request_before_signing(self, request: Any) -> None:
            request.context["timestamp"] = datetime.fromtimestamp(now_s, UTC).strftime(SIGV4_TIMESTAMP)
            super()._modify_request_before_signing(request)

    query = {"Action": "connect", "User": location.user}
    if location.serverless:
        query["ResourceType"] = "ServerlessCache"
    request = AWSRequest("GET", f"{_SCHEME}{location.cache}/?{urlencode(query)}")
    At(credentials, _SERVICE, region, EXPIRES_S).add_auth(request)
    return str(request.url).removeprefix(_SCHEME)


def _refusal(error: Exception) -> UnavailableError:
    from botocore.exceptions import NoRegionError

    if isinstance(error, NoRegionError):
        said, field, reason = "the region is not known: set AWS_REGION", "AWS_REGION", "no_region"
        expected = "the cache's region"
    elif lacks_credentials(error):
        said, field, reason = "there are no AWS credentials: give this process a role", "limits.url", "no_credentials"
        expected = "credentials that are found"
    else:
        said, field, reason = "AWS's settings of this machine cannot be used", "limits.url", "no_credentials"
        expected = "a profile, or variables, that AWS's library can read"
    return UnavailableError(
        "limits_unavailable",
        f"No token can be made for `limits.url`: {said}.",
        field=field,
        expected=expected,
        reason=reason,
    )
