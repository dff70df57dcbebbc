"""How rates, durations and scopes are written."""

from __future__ import annotations

import pytest

from modelyard.auth.scopes import Rate, Scope, parse_duration, parse_rate, parse_scopes
from modelyard.core.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, 1.0, 100)),
        ("6000/m", Rate(6000, 60.0, 6000)),
        ("1/h", Rate(1, 3600.0, 1)),
        ("5/10s", Rate(5, 10.0, 5)),
        (" 2/d ", Rate(2, 86_400.0, 2)),
    ],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    """count/unit, with a burst of the count."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "1.5/s", "100/y", "9999999999/s", "1/9999d", "1/s;", "١/s"])
def test_wrong_rates_name_the_field_and_an_example(text: str) -> None:
    """rate_invalid, with what was expected and an example that works."""
    with pytest.raises(InvalidRequestError) as refused:
        parse_rate(text)
    assert refused.value.code == "rate_invalid"
    assert parse_rate(refused.value.detail["example"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """A number and a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "0s", "1y", "999999999d"])
def test_wrong_durations_name_the_field(text: str) -> None:
    """parameter_invalid, naming the caller's field."""
    with pytest.raises(InvalidRequestError) as refused:
        parse_duration(text, field="expires")
    assert (refused.value.code, refused.value.detail["field"]) == ("parameter_invalid", "expires")


def test_scopes_are_known_names_once() -> None:
    """Sorted, without repetition."""
    assert parse_scopes(["predict", "audit", "predict"]) == (Scope.AUDIT, Scope.PREDICT)
