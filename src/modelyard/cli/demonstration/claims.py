"""What Modelyard promises, held against what was seen. Every claim is computed from the answers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.cli.demonstration.calling import Form, Got
from modelyard.cli.demonstration.play import Asking, Findings
from modelyard.cli.demonstration.training import Lesson

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Claim:
    """One promise. `seen` is what was found, in words; `holds` whether that is the promise."""

    name: str
    seen: str
    holds: bool


@dataclass(frozen=True)
class Accuracy:
    """One version's accuracy over HTTP by form, 0 to 1. `same` if each row got scikit-learn's own label every time."""

    lesson: Lesson
    by_form: dict[Form, float]
    same: bool


@dataclass(frozen=True)
class Latency:
    """What one form took at the client, in ms, by PERCENTILES."""

    form: Form
    rows: int
    requests: int
    took_ms: tuple[float, ...]


def claims(findings: Findings) -> tuple[Claim, ...]:
    """All of them, in the order in which they were played."""
    return (
        _same_labels(findings), _all_logged(findings), _none_lost(findings), _one_version(findings),
        _moved(findings), _refused(findings),
    )  # fmt: skip


def accuracies(findings: Findings) -> tuple[Accuracy, ...]:
    """One per version. A form's figure is the worse of one by one and batches, which only differ if something broke."""
    return tuple(_accuracy(lesson, askings) for lesson, askings in _by_lesson(findings.askings))


def latencies(findings: Findings) -> tuple[Latency, ...]:
    """One per form and size of request, over all versions."""
    kinds = dict.fromkeys((asking.form, asking.batch_rows) for asking in findings.askings)
    return tuple(_latency(findings, form, rows) for form, rows in sorted(kinds, key=lambda kind: kind[1]))


def _same_labels(findings: Findings) -> Claim:
    found = accuracies(findings)
    rows = sum(len(asking.labels) for asking in findings.askings)
    differ = sum(_differences(asking) for asking in findings.askings)
    holds = all(one.same and set(one.by_form.values()) == {one.lesson.accuracy} for one in found)
    return Claim("Accuracy over HTTP is the offline accuracy", f"{rows:,} rows, {differ:,} labels differ", holds)


def _all_logged(findings: Findings) -> Claim:
    ids = [one.prediction_id for one in findings.answers if one.status == 200]
    logged = findings.logged
    holds = logged.count == len(ids) and sorted(logged.ids) == sorted(ids) and len(set(ids)) == len(ids)
    return Claim("Every answer is in the log, once", f"{len(ids):,} answered, {logged.count:,} records", holds)


def _none_lost(findings: Findings) -> Claim:
    got = findings.switch.got
    lost = sum(one.status != 200 for one in got)
    return Claim("A switch under load loses no request", f"{len(got):,} sent, {lost:,} lost", bool(got) and lost == 0)


def _one_version(findings: Findings) -> Claim:
    offline = {lesson.version: lesson.offline for lesson in findings.switch.lessons}
    answered = [one for one in findings.switch.got if one.status == 200]
    mixed = sum(not _is_from_one(one, offline) for one in answered)
    seen = f"{len(answered) - mixed:,} from one, {mixed:,} from none"
    return Claim("Every answer is one version's own", seen, bool(answered) and mixed == 0)


def _moved(findings: Findings) -> Claim:
    switch = findings.switch
    old, new = (lesson.version for lesson in switch.lessons)
    before = sum(one.version == old for one in switch.got)
    after = sum(one.version == new for one in switch.got)
    late = sum(one.version == old for one in switch.got if one.sent_s > switch.done_s)
    seen = f"{before:,} by {old}, {after:,} by {new}, {late:,} late"
    return Claim("A confirmed switch is done", seen, before > 0 and after > 0 and late == 0)


def _refused(findings: Findings) -> Claim:
    return Claim("A revoked key is refused", f"status {findings.revoked_status}", findings.revoked_status == 401)


def _is_from_one(got: Got, offline: dict[str, np.ndarray]) -> bool:
    """Whether header, body and labels all name the same version."""
    labels = offline.get(got.version)
    if labels is None or got.said != got.version:
        return False
    first = got.asked.first
    return got.labels == tuple(labels[first : first + got.asked.count])


def _by_lesson(askings: Sequence[Asking]) -> Iterable[tuple[Lesson, list[Asking]]]:
    for lesson in dict.fromkeys(asking.lesson for asking in askings):
        yield lesson, [asking for asking in askings if asking.lesson is lesson]


def _accuracy(lesson: Lesson, askings: Sequence[Asking]) -> Accuracy:
    by_form: dict[Form, float] = {}
    for asking in askings:
        by_form[asking.form] = min(by_form.get(asking.form, 1.0), _share_right(asking))
    return Accuracy(lesson, by_form, all(_differences(asking) == 0 for asking in askings))


def _share_right(asking: Asking) -> float:
    labels = np.array(asking.labels)
    return float(np.mean(labels == asking.lesson.truth)) if len(labels) == len(asking.lesson.truth) else 0.0


def _differences(asking: Asking) -> int:
    """Rows without the label that scikit-learn gives them offline, or whose answer names another version."""
    offline = asking.lesson.offline
    if any(one.version != asking.lesson.version for one in asking.got) or len(asking.labels) != len(offline):
        return len(offline)
    return int(np.sum(np.array(asking.labels) != offline))


def _latency(findings: Findings, form: Form, rows: int) -> Latency:
    wanted = [asking for asking in findings.askings if (asking.form, asking.batch_rows) == (form, rows)]
    took_ms = [one.took_s * 1e3 for asking in wanted for one in asking.got]
    return Latency(form, rows, len(took_ms), tuple(float(np.percentile(took_ms, share)) for share in PERCENTILES))
