"""The fakes that have no real counterpart: what a test may rely on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelyard.testing
from modelyard.core.errors import ModelError, PublishError
from modelyard.testing import FakeClock, MemoryRateCounter, StubModel, StubRuntime, manifest, servable, signature


def test_every_public_name_has_a_docstring() -> None:
    """The fakes are public, so each says what it promises."""
    assert all(getattr(modelyard.testing, name).__doc__ for name in modelyard.testing.__all__)


def test_the_clock_turns_only_when_told() -> None:
    """advance turns both clocks, jump_to the wall clock alone, nothing turns either back."""
    clock = FakeClock()
    now, monotonic = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == (now, monotonic)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (now + 2.5, monotonic + 2.5)
    clock.jump_to(5.0)
    assert (clock.now(), clock.monotonic()) == (5.0, monotonic + 2.5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_the_stub_multiplies() -> None:
    """y = x · k in the output's datatype, only the outputs asked for, and every run is listed."""
    model = StubModel(3.0)
    x = np.array([[1, 2], [3, 4]], dtype=np.float32)
    answer = model.run({"x": x}, ["y"])
    assert answer["y"].dtype == np.float32
    np.testing.assert_array_equal(answer["y"], [[3, 6], [9, 12]])
    assert model.run({"x": x[:1]}, []).keys() == {"y"}
    assert model.run({"x": x}, ["z"]) == {}
    assert model.calls == [2, 1, 2]
    assert not model.closed
    model.close()
    model.close()
    assert model.closed


def test_the_stub_fails_and_waits_on_demand() -> None:
    """`before_run` sees the inputs first; `fails_when` decides per run."""
    seen: list[int] = []
    model = StubModel(
        before_run=lambda inputs: seen.append(len(inputs["x"])), fails_when=lambda inputs: bool((inputs["x"] < 0).any())
    )
    with pytest.raises(ModelError):
        model.run({"x": np.array([[-1.0, 2.0]])}, [])
    model.run({"x": np.array([[1.0, 2.0]])}, [])
    assert seen == [1, 1]
    assert model.calls == [1, 1]


def test_the_stub_runtime_knows_its_folders(tmp_path: Path) -> None:
    """A folder with a stub.json is detected, inspected and loaded; a broken one is refused as models are."""
    runtime = StubRuntime()
    assert runtime.detect(tmp_path) is None
    (tmp_path / "stub.json").write_text('{"k": 4, "columns": ["p", "q", "r"]}')
    assert runtime.detect(tmp_path) == "stub.json"
    inspection = runtime.inspect(tmp_path, "stub.json", {})
    assert inspection.signature == signature(("p", "q", "r"))
    assert runtime.load(tmp_path, manifest(signature=inspection.signature), {}).k == 4
    (tmp_path / "stub.json").write_text('{"k": ')
    with pytest.raises(PublishError) as caught:
        runtime.inspect(tmp_path, "stub.json", {})
    assert caught.value.code == "model_unreadable"


def test_a_servable_runs() -> None:
    """The builder's default is a loaded stub with the signature it serves."""
    built = servable()
    assert built.signature == signature()
    assert built.loaded.run({"x": np.ones((1, 2), np.float32)}, [])["y"].tolist() == [[2.0, 2.0]]


@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 0.5), min_size=1, max_size=80),
)
def test_the_rate_counter_never_passes_more_than_burst_and_rate(rate: int, burst: int, pauses: list[float]) -> None:
    """In any window from the start: at most burst + elapsed · rate; a refused take passes after `retry_after_s`."""
    clock = FakeClock()
    counter = MemoryRateCounter(clock)
    begin, passed = clock.monotonic(), 0
    for pause in pauses:
        clock.advance(pause)
        decision = counter.take(3, 1 / rate, burst)
        passed += decision.allowed
        assert passed <= burst + (clock.monotonic() - begin) * rate + 1e-6
        assert 0 <= decision.remaining <= burst
        assert decision.allowed == (decision.retry_after_s == 0)
    for _ in range(burst + 1):
        decision = counter.take(3, 1 / rate, burst)
    assert not decision.allowed
    clock.advance(decision.retry_after_s)
    assert counter.take(3, 1 / rate, burst).allowed
    assert counter.take(4, 1 / rate, burst).remaining == burst - 1
