"""The promises of journal.ports.OutcomeStore and QuarantineLog, and of the filters and pages that build on them."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from modelyard.core.errors import InvalidRequestError, NotFoundError
from modelyard.journal.items import item_chunks, item_page, items
from modelyard.journal.outcomes import outcome_key, value_text
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition, StoredOutcome, Target
from modelyard.journal.record import PredictionRecord
from modelyard.storage.stores import Stores
from modelyard.testing import prediction_record

ALL = RecordFilter()
T = 1_700_000_000
END = SpoolPosition("f", 1)


def outcome(prediction_id: str, value: Any, item: int = 0, at: float = T + 100.0, **more: Any) -> Outcome:
    return Outcome(prediction_id, item, value, at, **({"client": "acme", "key_id": "k1"} | more))


def is_value(value: Any) -> str:
    return "=" + outcome_key(value_text(value))


def test_an_outcome_is_on_its_record(stores: Stores) -> None:
    """The latest of each item is shown with the record, wherever it is read; the history has all of it."""
    stores.sink.store([prediction_record(rows=2), prediction_record("p2")], END)
    stored = stores.outcomes.put([outcome("p1", "late", 1), outcome("p1", 0.5)], T + 200.0)
    assert stored[0] == StoredOutcome("p1", 1, "late", T + 100.0, 1, True, True)
    shown = [
        {"item": 0, "value": 0.5, "at": "2023-11-14T22:15:00.000000Z", "revision": 1},
        {"item": 1, "value": "late", "at": "2023-11-14T22:15:00.000000Z", "revision": 1},
    ]
    assert stores.log.get("p1")["outcomes"] == shown
    assert {r["id"]: r["outcomes"] for r in stores.log.page(ALL, 5, None).records} == {"p1": shown, "p2": []}
    assert [r["outcomes"] for (r,) in stores.log.export(ALL, 1)] == [shown, []]
    kept = {"recorded_at": "2023-11-14T22:16:40.000000Z", "client": "acme", "key_id": "k1"}
    assert stores.outcomes.history("p1") == [one | kept for one in shown]
    assert stores.outcomes.history("p2") == []


def test_another_value_is_a_new_revision_and_the_same_is_none(stores: Stores) -> None:
    """The same value again changes nothing, whoever sends it; a correction keeps what it corrects."""
    stores.sink.store([prediction_record()], END)
    values = [1, 1.0, 1, 0, True, 1]
    stored = stores.outcomes.put([outcome("p1", value, key_id=f"k{n}") for n, value in enumerate(values)], T)
    assert [(one.revision, one.created) for one in stored] == [
        (1, True), (1, False), (1, False), (2, True), (3, True), (4, True),
    ]  # fmt: skip
    assert [one["value"] for one in stores.log.get("p1")["outcomes"]] == [1]
    history = stores.outcomes.history("p1")
    assert [(one["value"], one["revision"], one["key_id"]) for one in history] == [
        (1, 1, "k0"), (0, 2, "k3"), (True, 3, "k4"), (1, 4, "k5"),
    ]  # fmt: skip
    assert stores.log.count(RecordFilter(outcome=is_value(0))) == 0
    assert stores.log.count(RecordFilter(outcome=is_value(1))) == 1


def test_an_outcome_may_come_before_its_record(stores: Stores) -> None:
    """It waits, and is found by all filters once the record is stored."""
    (early,) = stores.outcomes.put([outcome("p1", "yes")], T)
    assert (early.created, early.joined) == (True, False)
    assert stores.log.count(RecordFilter(outcome="has")) == 0
    stores.sink.store([prediction_record(), prediction_record("p2")], END)
    assert stores.log.count(RecordFilter(outcome="has")) == 1
    assert [r["id"] for r in stores.log.page(RecordFilter(outcome=is_value("yes")), 5, None).records] == ["p1"]
    assert stores.outcomes.put([outcome("p1", "yes")], T)[0].joined


def test_targets_are_the_requests_in_the_log(stores: Stores) -> None:
    """Whose they are, to which endpoint, and how many items: rows, one without a batch, none of a refused one."""
    stores.sink.store(
        [
            prediction_record("a", client="c", endpoint="e", rows=3),
            prediction_record("b", rows=0),
            prediction_record("c", rows=0, status=400),
        ],
        END,
    )
    assert stores.outcomes.targets(["a", "b", "c", "nobody"]) == {
        "a": Target("c", "e", 3),
        "b": Target("acme", "tree", 1),
        "c": Target("acme", "tree", 0),
    }
    assert stores.outcomes.targets([]) == {}


VALUES = [None, True, 0, -1.5, "", "ü" * 200, ["a", 1], {"b": 1, "a": [2.0]}]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_any_json_value_can_come_true(stores: Stores, value: Any) -> None:
    """Short or long, it is stored, shown, and found by its own value alone."""
    stores.sink.store([prediction_record(f"p{n}") for n in range(len(VALUES))], END)
    stores.outcomes.put([outcome(f"p{n}", one) for n, one in enumerate(VALUES)], T)
    (found,) = stores.log.page(RecordFilter(outcome=is_value(value)), 5, None).records
    assert found["outcomes"][0]["value"] == value


def _world(stores: Stores, seed: int) -> tuple[list[dict[str, Any]], dict[tuple[str, int], Any]]:
    """Forty requests of up to four rows, some refused; a third of the items have an outcome."""
    chance = random.Random(seed)
    records: list[dict[str, Any]] = []
    given: dict[tuple[str, int], Any] = {}
    for number in range(40):
        status = chance.choice((200, 200, 200, 400))
        rows = chance.randrange(5)
        subject = chance.choice(("", "", "s1", "s2"))
        records.append(
            {"prediction_id": f"p{number:02d}", "at": T + number // 3, "rows": rows, "status": status,
             "subject": subject, "client": f"c{number % 3}"}
        )  # fmt: skip
        count = rows or int(status < 400)
        for item in range(count):
            if chance.random() < 0.3:
                given[f"p{number:02d}", item] = chance.choice((0, 1, "x"))
    half = len(given) // 2
    outcomes = [outcome(one, value, item) for (one, item), value in given.items()]
    stores.outcomes.put(outcomes[:half], T)
    stores.sink.store([prediction_record(**fields) for fields in records], END)
    stores.outcomes.put(outcomes[half:], T)
    return sorted(records, key=lambda r: (r["at"], r["prediction_id"]), reverse=True), given


def _matching(
    records: list[dict[str, Any]], given: dict[tuple[str, int], Any], wanted: RecordFilter
) -> list[tuple[str, int]]:
    """The items that match, newest request first."""
    missing = object()
    found: list[tuple[str, int]] = []
    for record in records:
        if wanted.subject not in (None, record["subject"]) or wanted.client not in (None, record["client"]):
            continue
        for item in range(record["rows"] or int(record["status"] < 400)):
            value = given.get((record["prediction_id"], item), missing)
            if (
                wanted.outcome is None
                or (wanted.outcome == "has" and value is not missing)
                or (wanted.outcome == "none" and value is missing)
                or (value is not missing and wanted.outcome == is_value(value))
            ):
                found.append((record["prediction_id"], item))
    return found


FILTERS = [
    RecordFilter(items=True),
    RecordFilter(outcome="has"),
    RecordFilter(outcome="none"),
    RecordFilter(outcome=is_value(1)),
    RecordFilter(outcome=is_value("x")),
    RecordFilter(outcome=is_value("nobody said this")),
    RecordFilter(subject="s1"),
    RecordFilter(subject="s1", outcome="has"),
    RecordFilter(subject="s2", outcome=is_value(0), client="c1"),
    RecordFilter(subject="nobody"),
    RecordFilter(client="c2", outcome="none"),
    RecordFilter(client="c2", outcome="has"),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("seed", [1, 2])
def test_requests_and_items_agree(stores: Stores, wanted: RecordFilter, seed: int) -> None:
    """A request matches if one of its items does. Pages of any size, counts and exports, of requests and of items,
    name the same."""
    records, given = _world(stores, seed)
    expected = _matching(records, given, msgspec.structs.replace(wanted, items=True))
    requests = list(dict.fromkeys(one for one, _ in expected))
    narrowed = msgspec.structs.replace(wanted, items=wanted.outcome is None)
    assert [r["id"] for r in stores.log.page(narrowed, 100, None).records] == requests
    assert [r["id"] for chunk in stores.log.export(narrowed, 7) for r in chunk] == requests[::-1]
    if not narrowed.items:
        assert stores.log.count(wanted) == len(requests)
    assert stores.log.count(msgspec.structs.replace(wanted, items=True)) == len(expected)
    for limit in (1, 3, 100):
        found: list[tuple[str, int]] = []
        cursor = None
        while True:
            page = item_page(stores.log, wanted, limit, cursor)
            assert len(page.records) <= limit
            found += [(one["prediction_id"], one["item"]) for one in page.records]
            cursor = page.cursor
            if cursor is None:
                break
            assert len(page.records) == limit
        assert found == expected
    chunks = list(item_chunks(stores.log.export(narrowed, 7), wanted.outcome, 4))
    assert sorted((one["prediction_id"], one["item"]) for chunk in chunks for one in chunk) == sorted(expected)
    assert all(0 < len(chunk) <= 4 for chunk in chunks)


def test_a_page_of_items_goes_on_while_records_arrive(stores: Stores) -> None:
    """Newer requests neither repeat nor hide an item, also where a page ended inside a request."""
    stores.sink.store([prediction_record(f"p{n}", rows=3) for n in range(4)], END)
    first = item_page(stores.log, ALL, 5, None)
    stores.sink.store([prediction_record(f"q{n}", at=T + 9.0 + n, rows=2) for n in range(3)], END)
    rest = item_page(stores.log, ALL, 100, first.cursor)
    ids = [one["id"] for one in (*first.records, *rest.records)]
    assert ids == [f"p{n}/{item}" for n in (3, 2, 1, 0) for item in range(3)]


@pytest.mark.parametrize("cursor", ["", "!", "AAAA", "MTpw", "MTpwLw", "MTpwL3g", "MTpwLy0x", "a" * 10_000])
def test_an_item_cursor_that_was_never_given_out_is_refused(stores: Stores, cursor: str) -> None:
    """cursor_invalid; a record's own cursor is none of an item."""
    with pytest.raises(InvalidRequestError) as caught:
        item_page(stores.log, ALL, 5, cursor)
    assert caught.value.code == "cursor_invalid"


def shown(record: PredictionRecord, stores: Stores) -> list[dict[str, Any]]:
    stores.sink.store([record], END)
    return [
        {name: item[name] for name in ("id", "inputs", "outputs", "error")}
        for item in items(stores.log.get(record.header.id))
    ]


def test_an_item_has_its_own_inputs_and_outputs(stores: Stores) -> None:
    """By column where columns have names, by input where they have none, whole where the model knows no rows."""
    columns_of_x = {"X": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}
    named = prediction_record("named", rows=2, inputs=columns_of_x, outputs={"y": [5, 6], "p": [[0, 1], [1, 0]]})
    assert shown(named, stores) == [
        {"id": "named/0", "inputs": {"a": 1, "b": 2}, "outputs": {"y": 5, "p": [0, 1]}, "error": None},
        {"id": "named/1", "inputs": {"a": 3, "b": 4}, "outputs": {"y": 6, "p": [1, 0]}, "error": None},
    ]
    columns = prediction_record("columns", rows=2, inputs={"a": [[1], [2]], "b": ["x", "y"]}, outputs={"y": [[5], [6]]})
    assert [one["inputs"] for one in shown(columns, stores)] == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert [one["outputs"] for one in shown(columns, stores)] == [{"y": 5}, {"y": 6}]
    whole = prediction_record("whole", rows=0, inputs={"X": [1, 2]}, outputs={"y": [[3]]})
    assert shown(whole, stores) == [{"id": "whole/0", "inputs": {"X": [1, 2]}, "outputs": {"y": [[3]]}, "error": None}]
    hidden = prediction_record("hidden", rows=1, inputs={"X": "[redacted]"}, outputs={"y": [1]})
    assert shown(hidden, stores)[0]["inputs"] == {"X": "[redacted]"}


def test_an_item_that_was_refused_says_why(stores: Stores) -> None:
    """Neighbours of a refused item have their outputs; a refused request's items have its error."""
    refused = {"code": "field_missing", "message": "no", "detail": {}}
    mixed = prediction_record(
        "mixed", rows=2, inputs=[{"a": 1}, {"b": 2}], outputs=[{"output": {"label": 1}}, {"error": refused}]
    )
    assert [(one["outputs"], one["error"]) for one in shown(mixed, stores)] == [({"label": 1}, None), (None, refused)]
    assert [one["inputs"] for one in shown(mixed, stores)] == [{"a": 1}, {"b": 2}]
    failed = prediction_record("failed", rows=1, status=500, inputs={"X": [{"a": 1}]}, outputs={"code": "model_failed"})
    assert shown(failed, stores)[0] == {
        "id": "failed/0", "inputs": {"a": 1}, "outputs": None, "error": {"code": "model_failed"},
    }  # fmt: skip


def _quarantine(stores: Stores) -> None:
    raw = {"inputs": None, "outputs": None, "raw": b"\x00raw\xff", "flag": "undecoded"}
    flagged = msgspec.structs.replace(prediction_record("b", at=T + 2.0, client="c"), **raw)
    bare = msgspec.structs.replace(prediction_record("c", at=T + 3.0), flag="signature_unknown", inputs=None)
    refused = msgspec.structs.replace(prediction_record("d", at=T + 4.0, status=400), flag="request_refused")
    stores.sink.store([prediction_record("a", at=T + 1.0), flagged, bare, refused], END)
    stores.sink.store([prediction_record("a", at=T + 5.0, inputs={"x": 9}, client="c")], END)
    stores.sink.store([prediction_record("b", at=T + 2.0, inputs={"x": 8})], END)


def test_quarantined_records_are_listed_with_reason_and_size(stores: Stores) -> None:
    """Both kinds together, newest first, in pages; callers' own mistakes are not among them; never the bytes."""
    _quarantine(stores)
    pages: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = stores.quarantine.page(ALL, 1, cursor)
        pages += page.records
        cursor = page.cursor
        if cursor is None:
            break
    assert [(one["id"], one["reason"], one["raw_bytes"]) for one in pages[:2]] == [
        ("a", "id_taken", 0), ("c", "signature_unknown", 0),
    ]  # fmt: skip
    assert {(one["id"], one["reason"], one["raw_bytes"]) for one in pages[2:]} == {
        ("b", "undecoded", 5), ("b", "id_taken", 0),
    }  # fmt: skip
    assert all("raw" not in one and "record" not in one for one in pages)
    assert tuple(pages) == stores.quarantine.page(ALL, 100, None).records
    narrowed = stores.quarantine.page(RecordFilter(client="c", since=T + 3.0, until=T + 9.0), 10, None).records
    assert [(one["id"], one["client"]) for one in narrowed] == [("a", "c")]


def test_the_bytes_are_shown_on_demand(stores: Stores) -> None:
    """Raw bytes as base64, a record whose id was taken as it was decoded; of others nothing."""
    _quarantine(stores)
    (taken,) = stores.quarantine.raw("a")
    assert (taken["reason"], taken["record"]["inputs"], taken["record"]["client"]) == ("id_taken", {"x": 9}, "c")
    raw, other = stores.quarantine.raw("b")
    assert (raw["reason"], raw["raw"]) == ("undecoded", "AHJhd/8=")
    assert (other["reason"], other["record"]["inputs"]) == ("id_taken", {"x": 8})
    for unknown in ("c", "d", "nobody"):
        with pytest.raises(NotFoundError):
            stores.quarantine.raw(unknown)
