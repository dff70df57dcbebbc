"""How long records stay: what is due, legal holds, deletion by subject (DATA-4)."""

from __future__ import annotations

from fastapi import Response
from pydantic import Field

from modelyard.auth.scopes import Scope
from modelyard.core.types import NAME
from modelyard.http.forms.leaving import (
    BATCHES_PER_CALL,
    erase,
    hold_view,
    read_hold,
    retention_view,
    swept_view,
)
from modelyard.http.resource.answers import Answer, Time
from modelyard.http.routes.asked import Asked
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope

routes = RouteTable("retention")


class SweepBody(Asked):
    """`POST /v1/retention/sweeps`."""

    force: bool = Field(False, description="Although the clock or the amount looks wrong.")


class HoldBody(Asked):
    """`POST /v1/retention/holds`: what matches all that is named is not deleted; nothing named holds everything."""

    reason: str = Field(min_length=1, max_length=512, description="Why.", examples=["case 2026-17"])
    model: str | None = Field(None, pattern=f"^{NAME.pattern}$", description="Only this model's records.")
    endpoint: str | None = Field(None, pattern=f"^{NAME.pattern}$", description="Only this endpoint's.")
    client: str | None = Field(None, max_length=255, description="Only this client's.")
    subject: str | None = Field(None, max_length=256, description="Only those about this subject.")
    since: str | None = Field(None, max_length=64, description="Only from then on: ISO 8601, or a duration ago.")
    until: str | None = Field(None, max_length=64, description="Only before then.")


class ErasureBody(Asked):
    """`POST /v1/retention/erasures`."""

    subject: str = Field(max_length=256, description="Whom the records are about.", examples=["patient-17"])
    dry_run: bool = Field(False, description="Only say how much it is.")


class DueAnswer(Answer):
    """What is older than the settings allow."""

    predictions: int
    quarantined: int
    held: int
    stored: int


class RetentionAnswer(Answer):
    """How long records stay."""

    days: int
    quarantine_days: int
    before: Time | None
    due: DueAnswer
    put_off: str | None = Field(description="clock_jumped, gap_too_long, too_many_at_once; null: it leaves by itself.")
    swept_at: Time | None


class SweptAnswer(Answer):
    """What left."""

    predictions: int
    outcomes: int
    quarantined: int
    archived: int = Field(description="Those of the predictions that are in the archive now.")
    more: bool
    put_off: str | None


class HoldAnswer(Answer):
    """A legal hold."""

    id: str
    reason: str
    model: str | None
    endpoint: str | None
    client: str | None
    subject: str | None
    since: Time | None
    until: Time | None
    at: Time


class HoldsAnswer(Answer):
    """Those in force, oldest first."""

    holds: list[HoldAnswer]


class ErasedAnswer(Answer):
    """What was deleted; of a dry run, what there is. `held` stays: a legal hold keeps it."""

    dry_run: bool
    predictions: int
    outcomes: int | None
    quarantined: int
    kept_answers: int | None
    held: int
    archived: int = Field(description="Records in files of the archive.")
    more: bool


@routes.get("/v1/retention", RetentionAnswer)
@scope(Scope.ADMIN, also=Scope.AUDIT)
def show_retention(services: Wired, caller: Caller) -> Response:
    """How long records stay, how many are due, and why they wait if they do."""
    require_every_model(caller)
    return JsonResponse(retention_view(services.retention.plan(), services.settings.retention))


@routes.post("/v1/retention/sweeps", SweptAnswer)
@scope(Scope.ADMIN)
def sweep(services: Wired, caller: Caller, body: SweepBody | None = None) -> Response:
    """Deletes what is due now, a bounded part of it: call again while the answer says `more`."""
    require_every_model(caller)
    force = body is not None and body.force
    return JsonResponse(swept_view(services.retention.sweep(force=force, most_batches=BATCHES_PER_CALL)))


@routes.get("/v1/retention/holds", HoldsAnswer)
@scope(Scope.ADMIN, also=Scope.AUDIT)
def list_holds(services: Wired, caller: Caller) -> Response:
    """Legal holds in force, oldest first."""
    require_every_model(caller)
    return JsonResponse({"holds": [hold_view(hold) for hold in services.retention.holds()]})


@routes.post("/v1/retention/holds", HoldAnswer, statuses=(201,))
@scope(Scope.ADMIN)
def add_hold(services: Wired, caller: Caller, body: HoldBody) -> Response:
    """Puts a hold on records: neither age nor a deletion by subject takes them until it is released."""
    require_every_model(caller)
    said = read_hold(body.model_dump(), services.clock.now())
    return JsonResponse(hold_view(services.retention.hold(**said)), 201)


@routes.delete("/v1/retention/holds/{id}", HoldAnswer, refusals=(404,))
@scope(Scope.ADMIN)
def release_hold(services: Wired, caller: Caller, id: str) -> Response:
    """Ends a hold; what is due leaves with the next sweep."""
    require_every_model(caller)
    return JsonResponse(hold_view(services.retention.release(id)))


@routes.post("/v1/retention/erasures", ErasedAnswer)
@scope(Scope.ADMIN)
def erase_subject(services: Wired, caller: Caller, body: ErasureBody) -> Response:
    """Deletes what is stored about a subject, and what still waits on its way into the log; a bounded part of it: call
    again while the answer says `more`."""
    require_every_model(caller)
    return JsonResponse(erase(services.retention, body.subject, body.dry_run))
