"""Trying again: how often, how long between, how long in all; without waiting, on a clock of the test's own."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, SSLError

from modelyard.storage.s3.refusals import TookTooLongError, is_transient
from modelyard.storage.s3.retry import LONGEST_PAUSE_S, Retry
from modelyard.testing import FakeClock

AWAY = EndpointConnectionError(endpoint_url="http://x")


class Failing:
    """Fails so often, then gives 7; counts."""

    def __init__(self, times: int, error: Exception = AWAY) -> None:
        self.times, self.error, self.calls = times, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return 7


def bounded(attempts: int, timeout_s: float = 1e6, chance: float = 1.0) -> tuple[Retry, list[float]]:
    """A retry whose pauses move the clock, and the list of them."""
    clock, pauses = FakeClock(), []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    return Retry(attempts, timeout_s, clock, lambda: chance, pause), pauses


def test_as_often_as_it_may() -> None:
    """Four failures and a success are five attempts; a fifth failure is the caller's."""
    retry, pauses = bounded(5)
    assert retry.run(Failing(4)) == 7
    assert len(pauses) == 4
    failing = Failing(5)
    with pytest.raises(EndpointConnectionError):
        retry.run(failing)
    assert failing.calls == 5


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    """Doubled each time, never above the longest; chance takes any part of them."""
    retry, pauses = bounded(20)
    retry.run(Failing(19))
    assert pauses[:3] == [0.2, 0.4, 0.8]
    assert max(pauses) == LONGEST_PAUSE_S
    retry, pauses = bounded(20, chance=0.0)
    retry.run(Failing(19))
    assert set(pauses) == {0.0}


def test_no_attempt_begins_after_the_time() -> None:
    """The deadline counts from the operation's beginning, over all its requests."""
    retry, _ = bounded(1000, timeout_s=10)
    failing = Failing(1000)
    with pytest.raises(TookTooLongError):
        retry.run(failing)
    assert failing.calls < 12
    with pytest.raises(TookTooLongError):
        retry.run(Failing(0))


def test_what_will_not_pass_is_tried_once() -> None:
    """Refusals, wrong certificates, absent credentials, and errors of ours."""
    refused = ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "x")
    for error in (refused, SSLError(endpoint_url="x", error="x"), NoCredentialsError(), ValueError()):
        failing, (retry, _) = Failing(1, error), bounded(5)
        with pytest.raises(type(error)):
            retry.run(failing)
        assert failing.calls == 1
    for status in (429, 500, 502, 503, 504):
        assert is_transient(ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}, "x"))
