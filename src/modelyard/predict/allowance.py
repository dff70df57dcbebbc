"""What a client's requests of one turn may do: the limit is taken for all of them at once."""

from __future__ import annotations

import math

from modelyard.auth.table import Principal
from modelyard.core.call import RateState
from modelyard.core.errors import LimitError, ModelyardError, OverloadError
from modelyard.limits.clients import ClientLimits
from modelyard.limits.ports import RateCounter, RateDecision
from modelyard.predict.prediction import broken


class Grant:
    """So many pass, the rest hears the error. `rate` is what is left when their answers leave."""

    __slots__ = ("error", "left", "rate")

    def __init__(self, left: int, rate: RateState | None, error: ModelyardError | None) -> None:
        self.left = left
        self.rate = rate
        self.error = error


def grant(counter: RateCounter, principal: Principal, count: int) -> Grant:
    """Takes up to `count` requests from the client's allowance. Never raises."""
    try:
        decision = counter.take(principal.slot, principal.interval_s, principal.burst, count)
    except ModelyardError as error:
        return Grant(0, None, error)
    except Exception:
        return Grant(0, None, broken("limits"))
    rate = RateState(decision.limit, decision.remaining, decision.reset_s)
    return Grant(decision.passed, rate, None if decision.passed == count else limited(principal, decision))


def judged(principal: Principal, count: int, verdict: RateDecision | ModelyardError) -> Grant:
    """The same of what was decided elsewhere."""
    if isinstance(verdict, ModelyardError):
        return Grant(0, None, verdict)
    rate = RateState(verdict.limit, verdict.remaining, verdict.reset_s)
    return Grant(verdict.passed, rate, None if verdict.passed == count else limited(principal, verdict))


def own_bounds(clients: ClientLimits | None, principal: Principal) -> ModelyardError | None:
    """Takes one of the client's daily quota and concurrency; why not, if one of them leaves no room."""
    if clients is not None:
        try:
            clients.admit(principal.slot, principal.quota_per_day, principal.concurrency, principal.client)
        except ModelyardError as error:
            return error
    return None


def told(error: ModelyardError, rate: RateState) -> RateState:
    """What RateLimit-* says on a refusal: the bound that was reached, if it has numbers."""
    known = error.detail
    if not isinstance(error, LimitError) or "remaining" not in known:
        return rate
    return RateState(known["limit"], known["remaining"], known["reset_s"])


def take_one(counter: RateCounter, principal: Principal) -> RateState:
    """One request; LimitError, or what the counter raises."""
    return passed_one(principal, counter.take(principal.slot, principal.interval_s, principal.burst))


def passed_one(principal: Principal, decision: RateDecision) -> RateState:
    """What is left after a single request that passed; LimitError if it did not."""
    if decision.passed:
        return RateState(decision.limit, decision.remaining, decision.reset_s)
    raise limited(principal, decision)


def limited(principal: Principal, decision: RateDecision) -> LimitError:
    """The client has used up its rate."""
    return LimitError(
        "rate_limited",
        f"The client `{principal.client}` has used up its rate.",
        retry_after_s=decision.retry_after_s,
        field="rate",
        limit=decision.limit,
        remaining=decision.remaining,
        reset_s=math.ceil(decision.reset_s),
    )


def busy() -> OverloadError:
    """No permit is left."""
    return OverloadError("server_busy", "The server is busy; nothing was done.", retry_after_s=1.0, field="concurrency")
