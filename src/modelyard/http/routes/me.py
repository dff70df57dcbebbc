"""A client's own view: who it is here, what it may do, and what is left of it."""

from __future__ import annotations

from typing import Protocol

import msgspec
from fastapi import Request, Response

from modelyard.auth.scopes import Scope
from modelyard.auth.table import Principal
from modelyard.core.call import RateState
from modelyard.http.forms.views import Json, quota_text, rate_text, time_text
from modelyard.http.resource.answers import MeAnswer
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, scope

routes = RouteTable("me")


class Rest(msgspec.Struct, frozen=True):
    """What is left of a client's quota (None: it has none), the seconds until the next UTC day, and of its
    concurrency on this worker."""

    quota: int | None = None
    quota_reset_s: float | None = None
    concurrency: int | None = None


class Standing(Protocol):
    """What a worker knows of a client's use (`app.state.standing`; without it nothing is known)."""

    def __call__(self, principal: Principal) -> Rest:
        """What is left now; takes nothing."""


@routes.get("/v1/me", MeAnswer)
@scope(Scope.PREDICT)
def show_me(request: Request, caller: Caller) -> Response:
    """The key's client, scopes, models and limits, and what is left of them. Costs a request of the rate, nothing of
    the quota."""
    standing: Standing | None = getattr(request.app.state, "standing", None)
    rate: RateState | None = getattr(request.state, "rate", None)
    return JsonResponse(me_view(caller, rate, Rest() if standing is None else standing(caller)))


def me_view(principal: Principal, rate: RateState | None, rest: Rest) -> Json:
    """The JSON of it."""
    return {
        "client": principal.client,
        "key": {
            "id": principal.key_id,
            "scopes": sorted(principal.scopes),
            "models": list(principal.models.patterns),
            "expires_at": time_text(principal.expires_at),
        },
        "limits": {
            "rate": rate_text(*principal.rate),
            "burst": principal.burst,
            "quota": quota_text(principal.quota_per_day),
            "concurrency": principal.concurrency,
        },
        "left": {
            "rate": None if rate is None else rate.remaining,
            "rate_reset_s": None if rate is None else round(rate.reset_s, 3),
            "quota": rest.quota,
            "quota_reset_s": None if rest.quota_reset_s is None else round(rest.quota_reset_s, 3),
            "concurrency": rest.concurrency,
        },
    }
