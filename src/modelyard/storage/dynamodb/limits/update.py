"""A client's rate (GCRA, limits.gcra) and daily quota as one conditional update of its item.

An item holds the theoretical arrival time `tat` (nanoseconds since 1970) and the counts of UTC days (`d20420`).
DynamoDB's expressions add and compare; they have no clock and no maximum. So an update is made for what is known of the
item, and its condition says for which states it is right: a span of them where that is possible, so that hosts which
count one client at the same moment seldom fail each other. Where the condition does not hold, the answer brings the
item as it is, and the update is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.limits.ports import QuotaShare, RateAsk, RateDecision
from modelyard.storage.dynamodb.attributes import decode
from modelyard.storage.dynamodb.tables import EXPIRES_AT

DAYS = 4
"""As in limits.quota: a clock that is set a day or three on and back finds what it left."""
SKEW_NS = 5 * 10**9
"""A time further ahead than a burst and this was made by another limit, and is forgotten; less may be another host's
clock, and stays: hosts that took it off each other would give a client their difference again and again. Their clocks
are kept closer together than that (service_time)."""
MARGIN_S = 60

_ARRIVAL, _DAY = "tat", "d"
_SECOND_NS = 10**9
_DAY_NS = 86_400 * _SECOND_NS


class Seen(msgspec.Struct, frozen=True):
    """A client's item at some moment; the arrival time is 0 and the days are none where there is no item."""

    arrival_ns: int = 0
    days: Mapping[int, int] = {}

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Seen:
        """From an answer's attributes."""
        item = decode(attributes)
        days = {int(name[1:]): int(count) for name, count in item.items() if _is_day(name)}
        return cls(int(item.get(_ARRIVAL, 0)), days)


class Update:
    """An update expression and its condition, clause by clause."""

    def __init__(self) -> None:
        self._sets: list[str] = []
        self._removes: dict[str, None] = {}
        self._conditions: list[str] = []
        self._values: dict[str, dict[str, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._sets or self._conditions)

    def to(self, name: str, number: int) -> None:
        """Sets an attribute."""
        self._sets.append(f"{name} = {self._value(number)}")

    def by(self, name: str, number: int) -> None:
        """Adds to an attribute, which must be there: a condition sees to it."""
        self._sets.append(f"{name} = {name} + {self._value(number)}")

    def without(self, name: str) -> None:
        """Takes an attribute out."""
        self._removes[name] = None

    def when(self, name: str, relation: str, number: int) -> None:
        """Only if the attribute is there, and stands so to the number."""
        self._conditions.append(f"{name} {relation} {self._value(number)}")

    def when_at_most(self, name: str, number: int) -> None:
        """Only if the attribute is missing, or no more than the number."""
        self._conditions.append(f"(attribute_not_exists({name}) OR {name} <= {self._value(number)})")

    def when_missing(self, name: str) -> None:
        """Only if the attribute is missing."""
        self._conditions.append(f"attribute_not_exists({name})")

    def request(self) -> dict[str, Any]:
        """As UpdateItem takes it."""
        change = f"SET {', '.join(self._sets)}" + (f" REMOVE {', '.join(self._removes)}" if self._removes else "")
        return {
            "UpdateExpression": change,
            "ConditionExpression": " AND ".join(self._conditions),
            "ExpressionAttributeValues": self._values,
        }

    def _value(self, number: int) -> str:
        name = f":v{len(self._values)}"
        self._values[name] = {"N": str(number)}
        return name


class Plan(msgspec.Struct, frozen=True):
    """How many pass, and how many of them have a share of the quota, if the update is made; None where nothing is to
    be written: then it stands as it is."""

    passed: int
    reserved: int
    update: Update | None


def planned(ask: RateAsk, seen: Seen, now_ns: int) -> Plan:
    """What an ask comes to where the item is as it was seen."""
    update = Update()
    passed = _rate(update, ask, seen, now_ns)
    reserved, lasts_s = 0, 0
    if ask.quota_per_day is not None:
        reserved = _quota(update, ask, ask.quota_per_day, passed, seen, now_ns // _DAY_NS)
        lasts_s = DAYS * 86_400
    if not update:
        return Plan(passed, reserved, None)
    whole_s = -(-_depth_ns(ask) // _SECOND_NS)
    update.to(EXPIRES_AT, now_ns // _SECOND_NS + max(whole_s, lasts_s) + MARGIN_S)
    return Plan(passed, reserved, update)


def decided(ask: RateAsk, plan: Plan, seen: Seen, now_ns: int) -> RateDecision:
    """The decision where the item is as `seen` afterwards; in the terms of limits.gcra."""
    interval_ns, depth_ns = _interval_ns(ask), _depth_ns(ask)
    spent_ns = max(0, seen.arrival_ns - now_ns)
    today = now_ns // _DAY_NS
    quota = None if ask.quota_per_day is None else QuotaShare(plan.reserved, seen.days.get(today, 0), today)
    return RateDecision(
        plan.passed,
        ask.burst,
        max(0, depth_ns - spent_ns) // interval_ns,
        spent_ns / 1e9,
        0.0 if plan.passed == ask.count else max(0, spent_ns + interval_ns - depth_ns) / 1e9,
        quota,
    )


def _rate(update: Update, ask: RateAsk, seen: Seen, now_ns: int) -> int:
    interval_ns, depth_ns = _interval_ns(ask), _depth_ns(ask)
    spent_ns = max(0, seen.arrival_ns - now_ns)
    if spent_ns > depth_ns + SKEW_NS:
        update.to(_ARRIVAL, now_ns + depth_ns)
        update.when(_ARRIVAL, "=", seen.arrival_ns)
        return 0
    passed = min(ask.count, max(0, depth_ns - spent_ns) // interval_ns)
    taken_ns = passed * interval_ns
    if not passed:
        return 0
    if spent_ns:
        update.by(_ARRIVAL, taken_ns)
        update.when(_ARRIVAL, ">", now_ns)
        update.when(_ARRIVAL, "<=", now_ns + depth_ns - taken_ns)
    else:
        update.to(_ARRIVAL, now_ns + taken_ns)
        update.when_at_most(_ARRIVAL, now_ns)
    return passed


def _quota(update: Update, ask: RateAsk, most: int, passed: int, seen: Seen, today: int) -> int:
    told, wrong = ask.quota_day, ask.quota_correction
    counts, floor = dict(seen.days), {}
    if abs(told - today) < DAYS and (ask.quota_kept or wrong):
        if told in counts:
            counts[told] = max(0, counts[told] + wrong)
            floor[told] = max(0, -wrong)
        elif ask.quota_kept:
            counts[told] = ask.quota_kept
    used = counts.get(today, 0)
    reserved = min(passed, max(0, most - used))
    if reserved:
        counts[today] = used + reserved
    for day, count in counts.items():
        known = seen.days.get(day)
        name, full = f"{_DAY}{day}", day == today and reserved < passed
        if known is None:
            update.to(name, count)
            update.when_missing(name)
            for old in [old for old in seen.days if abs(old - today) >= DAYS]:
                update.without(f"{_DAY}{old}")
        elif full or known < floor.get(day, 0):
            # What is left decides how many pass, or a count would fall below nothing: right for this count alone.
            update.when(name, "=", known)
            if count != known:
                update.to(name, count)
        elif count != known:
            update.by(name, count - known)
            update.when(name, ">=", floor.get(day, 0))
            if day == today and reserved:
                update.when(name, "<=", most - (count - known))
    return reserved


def _is_day(name: str) -> bool:
    return name[0] == _DAY and name[1:].isdecimal()


def _interval_ns(ask: RateAsk) -> int:
    return int(ask.interval_s * 1e9 + 0.5) or 1


def _depth_ns(ask: RateAsk) -> int:
    return _interval_ns(ask) * ask.burst
