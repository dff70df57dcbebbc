"""Retention in the words of callers. Knows no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.codec.oip_request import MAX_SUBJECT_BYTES
from modelyard.core.errors import InvalidRequestError
from modelyard.core.settings import RetentionSettings
from modelyard.http.forms.asking import parse_time
from modelyard.http.forms.views import time_text
from modelyard.retention.desk import RetentionDesk
from modelyard.retention.ports import Hold
from modelyard.retention.sweep import Plan, Swept

Json = dict[str, Any]

BATCHES_PER_CALL = 20
"""Batches of one request or of one call of the command line, which goes on until there is no `more`."""
WHICH = ("model", "endpoint", "client", "subject")


def retention_view(plan: Plan, settings: RetentionSettings) -> Json:
    """How long records stay, what is due, and why it waits if it does."""
    aside = settings.quarantine_days
    return {
        "days": settings.days,
        "quarantine_days": settings.days if aside is None else aside,
        "before": time_text(plan.cutoffs.predictions) if settings.days else None,
        "due": {name: getattr(plan.due, name) for name in ("predictions", "quarantined", "held", "stored")},
        "put_off": plan.put_off,
        "swept_at": time_text(plan.swept_at),
    }


def swept_view(swept: Swept) -> Json:
    """What a sweep did."""
    view: Json = msgspec.to_builtins(swept)
    return view


def hold_view(hold: Hold) -> Json:
    """A legal hold."""
    times = {name: time_text(getattr(hold, name)) for name in ("since", "until", "at")}
    return {"id": hold.id, "reason": hold.reason, **{name: getattr(hold, name) for name in WHICH}, **times}


def read_hold(said: Mapping[str, Any], now: float) -> Json:
    """The arguments of RetentionDesk.hold: `reason`, and what is named of WHICH, `since` and `until`."""
    found: Json = {"reason": said["reason"]}
    for name in WHICH:
        if said.get(name) is not None:
            found[name] = read_subject(said[name]) if name == "subject" else said[name]
    for name in ("since", "until"):
        if said.get(name) is not None:
            found[name] = parse_time(str(said[name]), name, now)
    return found


def read_subject(subject: str) -> str:
    """A subject that a record can have; InvalidRequestError("parameter_invalid")."""
    size = len(subject.encode("utf-8", "replace"))
    if 0 < size <= MAX_SUBJECT_BYTES:
        return subject
    raise InvalidRequestError(
        "parameter_invalid",
        "The subject cannot be one.",
        field="subject",
        expected=f"1 to {MAX_SUBJECT_BYTES} bytes of text",
        got=f"{size} bytes",
        example="patient-17",
    )


def erase(desk: RetentionDesk, subject: str, dry_run: bool) -> Json:
    """Deletes what is stored about a subject, or says what that would be."""
    read_subject(subject)
    if dry_run:
        found = desk.find(subject)
        gone: Json = {
            "predictions": found.predictions, "outcomes": None, "quarantined": found.quarantined,
            "kept_answers": None, "held": found.held, "archived": desk.archived(subject), "more": False,
        }  # fmt: skip
    else:
        gone = msgspec.to_builtins(desk.erase(subject, BATCHES_PER_CALL))
    return {"dry_run": dry_run, **gone}
