"""How refusals are said over HTTP, and what keeps an export safe to open."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest

from modelyard.core.errors import CODES, FAMILIES, InvalidRequestError, LimitError, MethodError
from modelyard.http.errors import (
    CODE_STATUS,
    FAMILY_STATUS,
    NEVER_OVER_HTTP,
    error_body,
    error_headers,
    render_error,
    status_of,
)
from modelyard.http.forms.export import csv_rows
from modelyard.http.forms.views import rate_text, time_text


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_status(code: str) -> None:
    """No code falls through to a 500 by accident."""
    family = CODES[code]
    assert family in NEVER_OVER_HTTP or family in FAMILY_STATUS or code in CODE_STATUS
    status = status_of(family(code, "Sentence."))
    assert 400 <= status <= 599
    assert ("retry-after" in error_headers(family(code, "Sentence."))) is (status in (429, 503))


def test_no_family_is_forgotten() -> None:
    """A new family must be given a status here before it can be raised."""
    for family in FAMILIES:
        assert family in FAMILY_STATUS or family in NEVER_OVER_HTTP or family.codes <= CODE_STATUS.keys()


def test_retry_after_is_whole_seconds_rounded_up() -> None:
    """0.2 s says 1, 1.01 s says 2: never "now", never a fraction."""
    for seconds, text in ((0.2, "1"), (1.01, "2"), (None, "1"), (30.0, "30")):
        assert error_headers(LimitError("rate_limited", "Slow down.", retry_after_s=seconds))["retry-after"] == text


def test_the_body_has_the_four_fields_whatever_the_detail_holds() -> None:
    """Paths, sets, frozen mappings, lone surrogates and huge integers still make a JSON body."""
    for value in (Path("/x"), {"b", "a"}, MappingProxyType({"a": 1}), "\ud800", 2**80, float("nan"), {1: 2}):
        error = InvalidRequestError("value_invalid", "Bad value.", field="x", got=value)
        body = json.loads(error_body(error, "r"))
        assert body.keys() == {"error", "code", "detail", "request_id"}
        assert body["detail"]["field"] == "x"
    assert render_error(error, "r")[0] == 400


def test_a_wrong_verb_names_the_right_ones() -> None:
    """405 carries `Allow`."""
    assert error_headers(MethodError("method_not_allowed", "No.", expected=["GET", "POST"]))["allow"] == "GET, POST"


def test_no_csv_cell_runs_as_a_formula() -> None:
    """A cell never starts with what a spreadsheet would execute, in whichever column it is."""
    evil = ["=cmd()", "+1", "-1", "@x", "\tx", "\r=x", "\n=x"]
    for value in evil:
        line = csv_rows([{"id": value, "client": value, "arm": -1, "inputs": [1]}]).decode()
        assert line.startswith(("'", "\"'")), line
        assert ",'-1," in line


def test_rates_and_times_read_as_they_are_written() -> None:
    """The texts that come out go in again."""
    assert [rate_text(5, s) for s in (1, 10, 60, 3600, 86_400, 7200, 0.5)] == [
        "5/s", "5/10s", "5/m", "5/h", "5/d", "5/2h", "5/0.5s",
    ]  # fmt: skip
    assert time_text(0.5) == "1970-01-01T00:00:00.500000Z"
    assert time_text(None) is None
