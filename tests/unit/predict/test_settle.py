"""The spine's one catch-all: whatever breaks under one request, the others of its turn are answered (P1, P3)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from predict_yard import StubCall, Yard, on_loop, turns

from modelyard.core.errors import UnavailableError
from modelyard.core.types import Surface
from modelyard.journal.frame import MARK, read_frames
from modelyard.journal.spool import SpoolBroken
from modelyard.predict import sealing
from modelyard.predict.prediction import Prediction
from modelyard.predict.spine import REFUSED_AFTER_S


@pytest.mark.parametrize("place", range(4))
def test_a_connection_that_breaks_under_its_answer(place: int) -> None:
    """One caller's transport raises: the others are answered, nothing is held, all are on record."""

    async def test(yard: Yard) -> None:
        calls = yard.ask(4)
        calls[place].breaks = True
        await turns()
        assert [len(call.answers) for call in calls] == [int(n != place) for n in range(4)]
        yard.check_quiet()
        assert yard.journal.records == 4

    on_loop(test)


@pytest.mark.parametrize("place", range(4))
def test_an_answer_that_cannot_be_recorded(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame of one answer cannot be made: its caller hears `internal`, never the answer; the others get theirs."""
    real, victim = sealing.frame_of, b"%06x" % place  # the count at the end of its id

    def encode(prediction_id: bytes, at_ns: int, status: int, *rest: Any) -> Any:
        if prediction_id.endswith(victim) and status == 200:
            raise ValueError("a bug")
        return real(prediction_id, at_ns, status, *rest)

    monkeypatch.setattr(sealing, "frame_of", encode)

    async def test(yard: Yard) -> None:
        calls = yard.ask(4)
        await turns()
        assert [call.code for call in calls] == ["internal" if n == place else "" for n in range(4)]
        yard.check_quiet()
        assert yard.journal.records == 4

    on_loop(test)


def test_frames_that_can_never_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the refusal can be framed: nobody gets an unrecorded prediction, everybody an answer."""

    def fail(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(sealing, "frame_of", fail)

    async def test(yard: Yard) -> None:
        calls = yard.ask(3)
        await turns()
        assert [call.code for call in calls] == ["internal"] * 3
        yard.check_quiet()

    on_loop(test)


def test_a_broken_disk_acknowledges_nothing() -> None:
    """After a failed fdatasync the journal raises: no caller gets a 2xx, every caller gets an answer."""

    async def test(yard: Yard) -> None:
        yard.journal.error = SpoolBroken("an earlier fdatasync failed")
        calls = yard.ask(3)
        while not all(call.answers for call in calls):
            await asyncio.sleep(0)
        assert all(call.answers[0].status >= 500 for call in calls)
        yard.check_quiet()

    on_loop(test)


def test_a_full_spool_refuses_after_a_pause() -> None:
    """P4: who asks again at once must not take the drain's time: the refusal is not in this turn, and it comes."""

    async def test(yard: Yard) -> None:
        yard.journal.error = UnavailableError("journal_unavailable", "The spool is full.", retry_after_s=1.0)
        calls = yard.ask(3)
        begun = asyncio.get_running_loop().time()
        while not all(call.answers for call in calls):
            await asyncio.sleep(0)
        assert asyncio.get_running_loop().time() - begun >= REFUSED_AFTER_S
        assert [call.code for call in calls] == ["journal_unavailable"] * 3
        yard.check_quiet()

    on_loop(test)


def test_what_was_refused_for_want_of_room_leaves_a_record_without_its_body() -> None:
    """P4: under overload the spool grows by what is answered, not by what is refused; each still has its record."""

    async def test(yard: Yard) -> None:
        while yard.predictor._permits.take():
            pass
        calls = yard.ask(2)
        await turns()
        assert [call.code for call in calls] == ["server_busy"] * 2
        frames = list(read_frames(io.BytesIO(b"".join([*yard.journal.turns[-1], MARK]))))
        assert [(frame.record_header().code, frame.request) for frame in frames] == [("server_busy", b"")] * 2

    on_loop(test)


def test_a_station_that_breaks_before_the_batch() -> None:
    """A bug in the routing table is `internal`, counted, and nothing is held; the next request is fine."""

    async def test(yard: Yard) -> None:
        whole = yard.predictor.table
        yard.predictor._roads.table = None  # type: ignore[assignment]
        (call,) = yard.ask()
        await turns()
        assert call.code == "internal"
        assert yard.predictor.counters == {"internal": 1}
        yard.predictor.table = whole
        (call,) = yard.ask()
        await turns()
        assert call.code == ""
        yard.check_quiet()

    on_loop(test)


def test_a_request_with_no_good_item_whose_answer_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to run, and the encoder fails: `internal` at once, not a wait for the deadline."""

    async def test(yard: Yard) -> None:
        monkeypatch.setattr(Prediction, "answer_items_only", lambda _: 1 / 0)
        call = StubCall(yard.key, b'{"items":[{"a":1}]}')
        call.head = msgspec.structs.replace(call.head, surface=Surface.PREDICTIONS)
        yard.predictor.predict(call)
        await turns()
        assert call.code == "internal"
        yard.check_quiet()

    on_loop(test)


def test_answers_wait_for_the_commit() -> None:
    """`host`: the record is written, the permit is back, and the answer leaves when the commit says so."""
    waiting: list[Callable[[], None]] = []

    async def test(yard: Yard) -> None:
        calls = yard.ask(2)
        await turns()
        assert yard.journal.records == 2
        assert [call.answers for call in calls] == [[], []]
        assert len(yard.predictor.in_flight) == 2
        yard.predictor.expire()
        assert yard.journal.records == 2
        waiting.pop()()
        assert [call.code for call in calls] == ["", ""]
        yard.check_quiet()

    on_loop(test, lambda deliver, refuse: waiting.append(deliver))


def test_a_commit_that_refuses_answers_503() -> None:
    """`store`: who waits for a commit that fails hears so, like all of its turn, and nothing stays taken."""
    waiting: list[Callable[[Exception], None]] = []

    async def test(yard: Yard) -> None:
        calls = yard.ask(2)
        await turns()
        waiting.pop()(UnavailableError("journal_unavailable", "Not recorded.", retry_after_s=1.0))
        await asyncio.sleep(REFUSED_AFTER_S * 2)
        assert [call.code for call in calls] == ["journal_unavailable"] * 2
        yard.check_quiet()

    on_loop(test, lambda deliver, refuse: waiting.append(refuse))


def test_giving_up_answers_everyone_once() -> None:
    """`expire` twice, then the late result: one answer and one record each."""

    async def test(yard: Yard) -> None:
        calls = yard.ask(3)
        yard.predictor._admit(yard.predictor._arrived)
        yard.predictor._arrived = []
        yard.predictor.expire()
        yard.predictor.expire()
        await turns()
        assert [call.code for call in calls] == ["shutting_down"] * 3
        assert yard.journal.records == 3
        yard.check_quiet()

    on_loop(test)


def test_only_those_past_their_deadline_are_given_up() -> None:
    """`expire(now)` leaves those alone that still have time."""

    async def test(yard: Yard) -> None:
        old, new = yard.ask(2)
        yard.predictor._admit(yard.predictor._arrived)
        yard.predictor._arrived = []
        next(p for p in yard.predictor.in_flight if p.call is old).submitted_s = -1e6
        yard.predictor.expire(1.0)
        await turns()
        assert (old.code, new.code) == ("request_timeout", "")
        yard.check_quiet()

    on_loop(test)


def test_an_empty_turn_writes_nothing() -> None:
    """Nothing to settle is no write and no commit."""

    async def test(yard: Yard) -> None:
        yard.predictor.settle([])
        assert yard.journal.turns == []

    on_loop(test, lambda deliver: pytest.fail("nothing was to be committed"))
