"""The audit log: pages, the check of the chain, its head, export (SEC-4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from modelyard.audit.chain import START, Head
from modelyard.audit.ports import AuditFilter
from modelyard.auth.scopes import Scope
from modelyard.core.errors import InvalidRequestError
from modelyard.http.forms.asking import DEFAULT_PAGE, MAX_PAGE
from modelyard.http.forms.trail import audit_filter, export_events, head_view, verification_view
from modelyard.http.resource.answers import Answer, ListAnswer
from modelyard.http.resource.paging import page_answer
from modelyard.http.routes.asked import Asked
from modelyard.http.routes.gate import Caller, JsonResponse, RouteTable, Wired, require_every_model, scope

routes = RouteTable("audit")


class AuditQuery(Asked):
    """Which events of the audit log."""

    action: str | None = Field(None, description="What was done.", examples=["key:create"])
    subject: str | None = Field(None, description="To what, as kind:name.", examples=["endpoint:tree"])
    actor: str | None = Field(None, description="By whom: client:NAME or local:UID/USER.", examples=["client:ops"])
    since: str | None = Field(None, description="ISO 8601, UNIX seconds, or a duration before now.", examples=["7d"])
    until: str | None = Field(None, description="As `since`; exclusive.")

    def to_filter(self, now: float) -> AuditFilter:
        """The filter at UNIX time `now`; InvalidRequestError."""
        return audit_filter(self.model_dump(include=set(AuditQuery.model_fields)), now)


class AuditPageQuery(AuditQuery):
    """One page of them."""

    limit: int = Field(DEFAULT_PAGE, ge=1, le=MAX_PAGE, description="Most events of the page.")
    cursor: str | None = Field(None, max_length=512, description="From the page before.")


VERIFY_EVENTS = 10_000
"""Events that one request checks: a fraction of a second of a worker's time."""
_HASH = "^[0-9a-f]{64}$"


class VerifyQuery(Asked):
    """A head that the caller kept, and where to go on; both members of each, or none."""

    sequence: int | None = Field(None, ge=1, le=2**53, description="A kept head's `sequence`.")
    hash: str | None = Field(None, pattern=_HASH, description="Its `hash`.")
    after_sequence: int | None = Field(None, ge=1, le=2**53, description="Go on behind the `head` of the part before.")
    after_hash: str | None = Field(None, pattern=_HASH, description="Its `hash`.")

    def kept(self) -> tuple[Head, ...]:
        """The kept head; InvalidRequestError("field_missing") for a half one."""
        head = _head("", self.sequence, self.hash)
        return () if head is None else (head,)

    def after(self) -> Head:
        """Where to go on; InvalidRequestError("field_missing") for a half one."""
        return _head("after_", self.after_sequence, self.after_hash) or START


def _head(prefix: str, sequence: int | None, hash: str | None) -> Head | None:
    if sequence is not None and hash is not None:
        return Head(sequence, hash)
    if sequence is None and hash is None:
        return None
    field = prefix + ("hash" if hash is None else "sequence")
    raise InvalidRequestError("field_missing", f"A head has a sequence and a hash: `{field}` is missing.", field=field)


class EventAnswer(Answer):
    """One event; docs/concepts/audit.md says how `hash` is made."""

    sequence: int
    at: str
    actor: str
    key_id: str
    action: str
    subject: str
    before: Any
    after: Any
    address: str
    request_id: str
    previous: str = Field(pattern="^[0-9a-f]{64}$")
    hash: str = Field(pattern="^[0-9a-f]{64}$")


class EventsAnswer(ListAnswer):
    """One page."""

    events: list[EventAnswer]


class HeadAnswer(Answer):
    """The last link."""

    sequence: int
    hash: str = Field(pattern="^[0-9a-f]{64}$")


class HeadNowAnswer(Answer):
    """The last link now; null for a log without events."""

    head: HeadAnswer | None


class ProblemAnswer(Answer):
    """One break."""

    code: str
    sequence: int
    message: str


class VerificationAnswer(Answer):
    """What a check found."""

    sound: bool
    complete: bool
    checked: int
    head: HeadAnswer | None
    problems: list[ProblemAnswer]


@routes.get("/v1/audit", EventsAnswer)
@scope(Scope.AUDIT)
def list_events(
    request: Request, services: Wired, caller: Caller, asked: Annotated[AuditPageQuery, Query()]
) -> Response:
    """One page of events, newest first; `next_cursor` leads to the next."""
    require_every_model(caller)
    page = services.audit.page(asked.to_filter(services.clock.now()), asked.limit, asked.cursor)
    return page_answer(request, "events", [event.view() for event in page.events], page.cursor)


@routes.get("/v1/audit/verify", VerificationAnswer)
@scope(Scope.AUDIT)
def verify_chain(services: Wired, caller: Caller, asked: Annotated[VerifyQuery, Query()]) -> Response:
    """Checks the log, its head file, and a head that you kept, 10,000 events at a time: unless `complete`, go on with
    the answer's `head` as `after_sequence` and `after_hash`."""
    require_every_model(caller)
    return JsonResponse(verification_view(services.audit.verify(asked.kept(), asked.after(), VERIFY_EVENTS)))


@routes.get("/v1/audit/head", HeadNowAnswer)
@scope(Scope.AUDIT)
def show_head(services: Wired, caller: Caller) -> Response:
    """The last event's sequence and hash: keep it elsewhere, and nobody can cut the log before it unnoticed."""
    require_every_model(caller)
    return JsonResponse({"head": head_view(services.audit.head())})


@routes.get("/v1/audit/export", media=("application/jsonl",))
@scope(Scope.AUDIT)
def export_log(services: Wired, caller: Caller, asked: Annotated[AuditQuery, Query()]) -> Response:
    """All events that match, in the order of the chain, as a stream of JSON Lines."""
    require_every_model(caller)
    lines: Iterator[bytes] = export_events(services.audit, asked.to_filter(services.clock.now()))
    headers = {"content-disposition": 'attachment; filename="audit.jsonl"'}
    return StreamingResponse(lines, media_type="application/jsonl", headers=headers)
