"""The promises of journal.ports.RecordLog."""

from __future__ import annotations

import base64
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.core.errors import InvalidRequestError, NotFoundError
from modelyard.journal.ports import RecordFilter, SpoolPosition
from modelyard.storage.stores import Stores
from modelyard.testing import prediction_record

ALL = RecordFilter()
T = 1_700_000_000
END = SpoolPosition("f", 1)


def _fill(stores: Stores) -> list[dict[str, Any]]:
    """Sixty records; several share a microsecond. As plain dicts, newest first."""
    given: list[dict[str, Any]] = [
        {
            "prediction_id": f"p{(number * 7) % 60:02d}",
            "at": T + (number // 3) * 0.5,
            "model": "tree" if number % 2 else "bush",
            "endpoint": "tree" if number % 2 else "garden",
            "version": str(number % 3),
            "client": f"c{number % 4}",
            "status": (200, 200, 201, 400, 404, 500)[number % 6],
        }
        for number in range(60)
    ]
    stores.sink.store([prediction_record(**fields) for fields in given], END)
    return sorted(given, key=lambda fields: (fields["at"], fields["prediction_id"]), reverse=True)


def _ids(records: Any) -> list[str]:
    return [record["id"] for record in records]


def _expected(given: list[dict[str, Any]], wanted: RecordFilter) -> list[str]:
    def fits(fields: dict[str, Any]) -> bool:
        status = fields["status"] // 100 if (wanted.status or 0) < 10 else fields["status"]
        return (
            all(getattr(wanted, n) in (None, fields[n]) for n in ("model", "version", "client", "endpoint"))
            and wanted.status in (None, status)
            and (wanted.since is None or fields["at"] >= wanted.since)
            and (wanted.until is None or fields["at"] < wanted.until)
        )

    return [fields["prediction_id"] for fields in given if fits(fields)]


def test_a_record_has_the_names_of_the_reference_page(stores: Stores) -> None:
    """Every name, its value, and the time as RFC 3339 in UTC with microseconds."""
    stores.sink.store([prediction_record(at=1_700_000_000.000042, code="", arm=1)], END)
    expected = {
        "id": "p1",
        "time": "2023-11-14T22:13:20.000042Z",
        "request_id": "r1",
        "client": "acme",
        "key_id": "k1",
        "endpoint": "tree",
        "model": "tree",
        "version": "1",
        "arm": 1,
        "status": 200,
        "code": "",
        "rows": 1,
        "inputs": {"x": [[1.0, 2.0]]},
        "outputs": {"y": [[2.0, 4.0]]},
        "latency": {"queue_us": 10, "compute_us": 20, "total_us": 40},
        "sizes": {"request_bytes": 120, "answer_bytes": 80},
        "flag": "",
        "surface": "oip",
        "subject": "",
        "outcomes": [],
    }
    assert stores.log.get("p1") == expected
    assert stores.log.page(ALL, 10, None).records == (expected,)
    assert list(stores.log.export(ALL, 10)) == [[expected]]


def test_an_unknown_id_is_not_found(stores: Stores) -> None:
    """Asking for it says so."""
    with pytest.raises(NotFoundError) as caught:
        stores.log.get("nope")
    assert caught.value.code == "prediction_not_found"


def test_an_empty_log_is_one_empty_page(stores: Stores) -> None:
    """No records, no cursor, no chunks."""
    page = stores.log.page(ALL, 10, None)
    assert (page.records, page.cursor, stores.log.count(ALL), list(stores.log.export(ALL, 5))) == ((), None, 0, [])


FILTERS = [
    ALL,
    RecordFilter(model="tree"),
    RecordFilter(model="tree", version="1"),
    RecordFilter(version="2"),
    RecordFilter(client="c3"),
    RecordFilter(endpoint="garden"),
    RecordFilter(status=2),
    RecordFilter(status=4),
    RecordFilter(status=5),
    RecordFilter(status=404),
    RecordFilter(status=201),
    RecordFilter(status=3),
    RecordFilter(since=T + 2.0, until=T + 5.0),
    RecordFilter(since=T + 9.5),
    RecordFilter(until=T + 0.5),
    RecordFilter(since=float("-inf"), until=float("inf")),
    RecordFilter(since=1e300),
    RecordFilter(model="tree", client="c1", status=2, since=T + 1.0, until=T + 8.0),
    RecordFilter(client="nobody"),
    RecordFilter(model="' OR 1=1 --"),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("limit", [1, 7, 60])
def test_pages_count_and_export_agree(stores: Stores, wanted: RecordFilter, limit: int) -> None:
    """Pages of any size, joined, are the matching records newest first, each once; the export is their reverse."""
    expected = _expected(_fill(stores), wanted)
    found: list[str] = []
    cursor = None
    for _ in range(61):
        page = stores.log.page(wanted, limit, cursor)
        assert len(page.records) <= limit
        found += _ids(page.records)
        cursor = page.cursor
        if cursor is None:
            break
    assert cursor is None
    assert found == expected
    assert stores.log.count(wanted) == len(expected)
    chunks = list(stores.log.export(wanted, limit))
    assert all(0 < len(chunk) <= limit for chunk in chunks)
    assert [i for chunk in chunks for i in _ids(chunk)] == expected[::-1]


@pytest.mark.parametrize(
    "wanted",
    [
        RecordFilter(model="m1"),
        RecordFilter(model="m1", status=500),
        RecordFilter(model="m2", since=T + 2.0, until=T + 9.0),
        RecordFilter(version="3"),
        RecordFilter(version="3", outcome="none"),
        RecordFilter(version="0", status=2, since=T + 3.0),
        RecordFilter(model="m1", client="c1"),
        RecordFilter(version="3", endpoint="m2"),
        RecordFilter(model="none"),
        RecordFilter(version="none"),
    ],
    ids=str,
)
@pytest.mark.parametrize("limit", [7, 200])
def test_a_name_alone_finds_what_all_its_versions_and_models_have(
    stores: Stores, wanted: RecordFilter, limit: int
) -> None:
    """Models of several versions whose records come mixed, many in one microsecond: each page goes on where the one
    before ended, in the order of all."""
    mixed = random.Random(8)
    fields = [
        {
            "prediction_id": f"{'pqr'[number % 3]}{mixed.randrange(10**6):06}{number}",
            "at": T + mixed.randrange(20) * 0.5,
            "model": f"m{mixed.randrange(3)}",
            "version": str(mixed.choice([0, 1, 1, 1, 3, "", "10", "é"])),
            "client": f"c{number % 2}",
            "status": mixed.choice([200, 200, 500]),
        }
        for number in range(120)
    ]
    fields = [{**one, "endpoint": one["model"]} for one in fields]
    stores.sink.store([prediction_record(**one) for one in fields], END)
    ordered = sorted(fields, key=lambda one: (one["at"], one["prediction_id"]), reverse=True)
    expected = _expected(ordered, wanted)
    found, cursor = [], None
    while True:
        page = stores.log.page(wanted, limit, cursor)
        found += _ids(page.records)
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.records) == limit
    assert found == expected
    assert stores.log.count(wanted) == len(expected)
    assert [one["id"] for chunk in stores.log.export(wanted, limit) for one in chunk] == expected[::-1]


def test_paging_goes_on_while_records_arrive(stores: Stores) -> None:
    """Newer records that arrive between two pages neither repeat nor hide an older one."""
    given = _expected(_fill(stores), ALL)
    first = stores.log.page(ALL, 20, None)
    stores.sink.store([prediction_record(f"new{number}", at=T + 1000.0) for number in range(30)], END)
    second = stores.log.page(ALL, 60, first.cursor)
    assert _ids(first.records) + _ids(second.records) == given


CURSORS = [
    "",
    "!",
    "é",
    "AAAA",
    "=",
    "a" * 10_000,
    "p1",
    *(
        base64.urlsafe_b64encode(text).decode()
        for text in (
            b"1",
            b"1:",
            b":p",
            b"x:p",
            b"1.5:p",
            b"nan:p",
            b"\xff:p",
            b"9" * 40 + b":p",
            b"1_0:",
            b"9223372036854775808:p",
        )
    ),
]


@pytest.mark.parametrize("cursor", CURSORS, ids=range(len(CURSORS)))
def test_a_cursor_that_was_never_given_out_is_refused(stores: Stores, cursor: str) -> None:
    """cursor_invalid with the field, never another error."""
    with pytest.raises(InvalidRequestError) as caught:
        stores.log.page(ALL, 10, cursor)
    assert (caught.value.code, caught.value.detail["field"]) == ("cursor_invalid", "cursor")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cursor=st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda b: base64.urlsafe_b64encode(b).decode()))
)
def test_any_text_as_a_cursor_is_a_page_or_a_refusal(stores: Stores, cursor: str) -> None:
    """No text makes the log fail in any other way."""
    with suppress(InvalidRequestError):
        stores.log.page(ALL, 10, cursor)


@pytest.mark.parametrize("field", ["since", "until"])
def test_a_time_that_is_none_is_refused(stores: Stores, field: str) -> None:
    """NaN is no bound."""
    stores.sink.store([prediction_record()], END)
    with pytest.raises(InvalidRequestError) as caught:
        stores.log.count(RecordFilter(**{field: float("nan")}))
    assert (caught.value.code, caught.value.detail["field"]) == ("parameter_invalid", field)
