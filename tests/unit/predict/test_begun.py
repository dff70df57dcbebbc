"""Between the limit and the batcher: what a request has taken goes back if it becomes no prediction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from predict_yard import ROW, StubCall, Yard, on_loop, turns

from modelyard.core.clock import SystemClock
from modelyard.predict import spine
from modelyard.predict.replay import Replays
from modelyard.storage.file.kept import KeptAnswers


def with_idempotency(yard: Yard, call: StubCall) -> StubCall:
    """The same request under a key."""
    call.head = msgspec.structs.replace(call.head, idempotency="once")
    return call


def test_a_busy_server_takes_nothing_of_the_day() -> None:
    """API-5: three a day are three that were let in; those that found no permit are refused and count for nothing."""

    async def test(yard: Yard) -> None:
        while yard.predictor._permits.take():
            pass
        busy = yard.ask(5, key=yard.daily)
        await turns()
        assert [call.code for call in busy] == ["server_busy"] * 5
        while yard.predictor._permits.taken:
            yard.predictor._permits.release()
        calls = yard.ask(4, key=yard.daily)
        await turns()
        assert [call.code for call in calls] == ["", "", "", "quota_exhausted"]
        yard.check_quiet()

    on_loop(test)


def test_an_unexpected_error_gives_back_key_and_permit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: whatever breaks before a request is a prediction, its Idempotency-Key is free for the retry."""

    async def test(yard: Yard) -> None:
        replays = Replays(KeptAnswers(tmp_path / "kept", tmp_path, 0xABC, SystemClock()))
        yard.predictor._replays = replays
        with monkeypatch.context() as broken:
            broken.setattr(yard.predictor, "_new", lambda *_: 1 / 0)
            first = with_idempotency(yard, StubCall(yard.key))
            yard.predictor.predict(first)
            await turns()
        assert first.code == "internal"
        assert replays.running == 0
        yard.check_quiet()
        again = with_idempotency(yard, StubCall(yard.key))
        yard.predictor.predict(again)
        await turns()
        assert again.code == ""
        yard.check_quiet()

    on_loop(test)


def test_a_decoder_that_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: at the end of a process a large body is answered, once, and nothing is left of it."""

    async def test(yard: Yard) -> None:
        monkeypatch.setattr(spine, "is_read_apart", lambda call: True)
        over = ThreadPoolExecutor(1)
        over.shutdown()
        yard.predictor._decoder = over
        calls = yard.ask(2, ROW)
        await turns()
        assert [call.code for call in calls] == ["shutting_down"] * 2
        yard.check_quiet()
        yard.predictor.expire()
        assert [len(call.answers) for call in calls] == [1, 1]

    on_loop(test)
