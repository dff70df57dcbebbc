"""Taking outcomes: nothing is accepted that cannot be joined, nothing is lost that is on its way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import InvalidRequestError, ModelyardError, UnavailableError
from modelyard.core.settings import JournalSettings
from modelyard.journal import outcomes
from modelyard.journal.frame import encode_frame
from modelyard.journal.ids import PredictionIds
from modelyard.journal.outcomes import MAX_VALUE_BYTES, OutcomeDesk, find_spooled, outcome_key, value_text
from modelyard.journal.ports import Outcome, SpoolPosition, StoredOutcome, Target
from modelyard.journal.spool import SpoolWriter, spool_files
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, memory_stores, prediction_record

EPOCH, OTHER = 0xABC, 0xDEF


def one_id(number: int, epoch: int = EPOCH) -> str:
    return f"{epoch:016x}{number:010x}"


def given(prediction_id: str, value: Any = 1, item: int = 0) -> Outcome:
    return Outcome(prediction_id, item, value, 5.0, "acme", "k1")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Two workers' files; one of them wrote three records, two of which the drain has stored."""
    clock = FakeClock()
    for epoch in (EPOCH, OTHER):
        writer = SpoolWriter(tmp_path, epoch, JournalSettings(), clock)
        for number in range(3):
            header = prediction_record(one_id(number, epoch), client="acme", endpoint="tree", rows=number).header
            writer.append(list(encode_frame(header, b"q", b"a")))
        writer.close()
    return tmp_path


def test_only_what_waits_in_the_spool_is_found(spool: Path) -> None:
    """Whose it is and how many items it has; not what is made up, and not what the drain has behind it."""
    wanted = [one_id(2), one_id(7), one_id(1, OTHER), "x", f"{EPOCH:016x}", one_id(2).upper()]
    found = find_spooled(spool, wanted, lambda file: 0, FakeClock())
    assert found == {one_id(2): Target("acme", "tree", 2), one_id(1, OTHER): Target("acme", "tree", 1)}
    end = spool_files(spool)[0].stat().st_size
    assert find_spooled(spool, wanted, lambda file: end, FakeClock()) == {}


def test_files_of_other_lives_are_not_read(spool: Path) -> None:
    """An unknown id costs no reading of the spool unless a worker of its epoch is there."""
    asked: list[str] = []

    def position(file: str) -> int:
        asked.append(file[:16])
        return 0

    assert find_spooled(spool, [one_id(0, 0x123), "nobody"], position, FakeClock()) == {}
    assert asked == []
    find_spooled(spool, [one_id(0)], position, FakeClock())
    assert asked == [f"{EPOCH:016x}"]


@pytest.mark.parametrize("made", [PredictionIds(EPOCH).next(), one_id(7)], ids=["tells the time", "does not"])
def test_an_id_tells_whose_spool_it_waits_in(tmp_path: Path, made: str) -> None:
    """Those that begin with the time, and those of the program before, which may wait while it is upgraded."""
    for epoch in (EPOCH, OTHER):
        writer = SpoolWriter(tmp_path, epoch, JournalSettings(), FakeClock())
        header = prediction_record(made if epoch == EPOCH else one_id(1, OTHER)).header
        writer.append(list(encode_frame(header, b"q", b"a")))
        writer.close()
    asked: list[str] = []

    def position(file: str) -> int:
        asked.append(file[:16])
        return 0

    assert set(find_spooled(tmp_path, [made], position, FakeClock())) == {made}
    assert asked == [f"{EPOCH:016x}"]


def test_a_search_is_bounded(spool: Path) -> None:
    """A drain that is far behind is said; the caller comes again, and nothing was stored."""

    class Late(FakeClock):
        def monotonic(self) -> float:
            self.advance(outcomes.SEARCH_S)
            return super().monotonic()

    with pytest.raises(UnavailableError) as caught:
        find_spooled(spool, [one_id(9)], lambda file: 0, Late())
    assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 5.0)


def test_a_file_that_is_stored_meanwhile_is_no_error(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain may delete a file between the listing and the reading."""
    files = spool_files(spool)
    monkeypatch.setattr(outcomes, "spool_files", lambda folder: files)
    for path in files:
        path.unlink()
    assert find_spooled(spool, [one_id(0)], lambda file: 0, FakeClock()) == {}


def desk(stores: Stores, find: Any = None) -> OutcomeDesk:
    return OutcomeDesk(stores.outcomes, find or (lambda ids: {}), FakeClock())


def codes(results: list[StoredOutcome | ModelyardError]) -> list[str]:
    return [one.code if isinstance(one, ModelyardError) else "stored" for one in results]


def test_each_is_stored_or_refused_on_its_own() -> None:
    """Unknown, somebody else's, beyond the last item, too long: each has its reason, the others are stored."""
    stores = memory_stores()
    records = [prediction_record("mine", rows=2), prediction_record("theirs", client="other")]
    stores.sink.store([*records, prediction_record("refused", status=400, rows=0)], SpoolPosition("f", 1))
    asked = [
        given("mine"), given("mine", item=1), given("mine", item=2), given("theirs"), given("nobody"),
        given("refused"), given("mine", "x" * MAX_VALUE_BYTES), given("mine", 2**70), given("mine", -1, -1),
    ]  # fmt: skip
    found = codes(desk(stores).give(asked, lambda target: target.client == "acme"))
    assert found == [
        "stored", "stored", "value_out_of_range", "prediction_not_found", "prediction_not_found",
        "value_out_of_range", "value_invalid", "value_invalid", "value_out_of_range",
    ]  # fmt: skip
    assert [one["value"] for one in stores.log.get("mine")["outcomes"]] == [1, 1]


def test_what_is_stored_between_the_two_looks_is_found() -> None:
    """The drain may move a record from the spool to the database after the first look there."""
    stores = memory_stores()

    def find(ids: Collection[str]) -> Mapping[str, Target]:
        stores.sink.store([prediction_record("p1")], SpoolPosition("f", 1))
        return {}

    (result,) = desk(stores, find).give([given("p1")], lambda target: True)
    assert isinstance(result, StoredOutcome)
    assert result.joined


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (-0.0, "0"), (1e30, "1e+30"), ([1.0, {"b": 2.0, "a": None}], '[1,{"a":null,"b":2}]'), (True, "true")],
)
def test_equal_values_have_one_text(value: Any, text: str) -> None:
    """Whole floats are integers, keys are sorted."""
    assert value_text(value) == text
    assert outcome_key(text) == text


def test_values_that_cannot_be_stored_are_refused() -> None:
    """Too long, too large, no JSON: value_invalid with the field."""
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    for value in ("x" * MAX_VALUE_BYTES, 2**64, "\ud800", deep):
        with pytest.raises(InvalidRequestError) as caught:
            value_text(value)
        assert (caught.value.code, caught.value.detail["field"]) == ("value_invalid", "value")
    long = value_text("y" * 100)
    assert len(outcome_key(long)) == 64
    assert outcome_key(long) != outcome_key(value_text("y" * 101))
