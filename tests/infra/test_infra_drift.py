"""What a second plan shows counts as drift, but for the two things that an emulator is known to get wrong."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from emulation.drift import drift

CERTIFICATE = {
    "domain_name": "api.example.com",
    "options": [{"certificate_transparency_logging_preference": "ENABLED"}],
}


def planned(kind: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """A plan that updates one resource."""
    change = {"actions": ["update"], "before": before, "after": after}
    return {"resource_changes": [{"address": f"{kind}.this", "type": kind, "mode": "managed", "change": change}]}


def certificate(**options: str | None) -> dict[str, Any]:
    """A certificate with these options beside its own."""
    made = deepcopy(CERTIFICATE)
    made["options"][0].update(options)  # type: ignore[attr-defined]
    return made


def test_a_value_that_was_made_up_is_no_drift() -> None:
    """A second plan that only takes away the value made up for `options.export` changes nothing of ours."""
    plan = planned("aws_acm_certificate", certificate(export="export-92f683fa4b29"), certificate(export=None))
    assert drift(plan, []) == []


def test_any_other_change_of_the_same_argument_is_drift() -> None:
    """Another value, a change beside it, or the same in another resource still counts."""
    made_up, switched = certificate(export="export-92f683fa4b29"), certificate(export="DISABLED")
    beside = certificate(export=None, certificate_transparency_logging_preference="DISABLED")
    cases = [(switched, certificate(export=None)), (made_up, switched), (made_up, beside)]
    found = [drift(planned("aws_acm_certificate", before, after), []) for before, after in cases]
    assert found == [["aws_acm_certificate.this options"]] * 3
    assert drift(planned("aws_lb", made_up, certificate(export=None)), []) == ["aws_lb.this options"]


def test_what_is_forgotten_needs_a_call_that_sent_it() -> None:
    """An argument counts as forgotten only where an accepted call held it."""
    plan = planned("aws_kms_key", {"rotation_period_in_days": None}, {"rotation_period_in_days": 365})
    call = {"status": 200, "body": '{"KeyId": "k", "RotationPeriodInDays": 365}'}
    assert drift(plan, []) == drift(plan, [{**call, "status": 400}]) == ["aws_kms_key.this rotation_period_in_days"]
    assert drift(plan, [call]) == []
