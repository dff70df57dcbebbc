"""Who runs with whom, where, and that each job is settled exactly once (P3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from batch_jobs import Bench, StubJob

from modelyard.batching import batcher as batcher_module
from modelyard.batching.lane import RETURN_AFTER_RUNS
from modelyard.batching.meter import run_seconds
from modelyard.core.errors import InternalError, OverloadError
from modelyard.core.types import Servable, Signature, Tensors, TensorSpec
from modelyard.testing import StubModel, servable


def runs(served: Servable) -> list[int]:
    """The rows of each run of its model."""
    return served.loaded.calls  # type: ignore[attr-defined,no-any-return]


def test_one_turn_is_one_batch_and_one_settlement() -> None:
    """All that came in one turn runs once, and is settled together in the order in which it came."""
    served, bench = servable(), Bench()
    jobs = [StubJob(served, n) for n in range(8)]
    bench.submit(*jobs)
    bench.loop.turn()
    assert runs(served) == [8]
    assert bench.turns == [jobs]
    assert all(job.is_right for job in jobs)


def test_rows_of_a_batch_are_bounded() -> None:
    """Never more than batching.max_rows rows, unless one job alone has more; the rest runs in the next turns."""
    served, bench = servable(), Bench(max_rows=10)
    jobs = [StubJob(served, n, rows) for n, rows in enumerate([4, 4, 4, 25, 1, 9, 1])]
    bench.submit(*jobs)
    bench.loop.settle()
    assert runs(served) == [8, 4, 25, 10, 1]
    assert bench.settled == jobs
    assert all(job.is_right for job in jobs)


def test_a_version_that_is_not_batched_runs_one_by_one() -> None:
    """One job a run, however many wait, in order."""
    served, bench = servable(batched=False), Bench()
    jobs = [StubJob(served, n, rows=2) for n in range(5)]
    bench.submit(*jobs)
    bench.loop.settle()
    assert runs(served) == [2] * 5
    assert bench.settled == jobs
    assert all(job.is_right for job in jobs)


def test_other_shapes_never_share_a_batch() -> None:
    """Where columns vary, only neighbours of one shape run together; everybody gets the own shape back."""
    spec = TensorSpec("x", "FP32", (-1, -1))
    model = StubModel(signature=Signature((spec,), (TensorSpec("y", "FP32", (-1, -1)),)))
    shapes: list[tuple[int, ...]] = []
    model.before_run = lambda inputs: shapes.append(inputs["x"].shape)
    served, bench = servable(model), Bench()
    jobs = [StubJob(served, n, columns=columns) for n, columns in enumerate([2, 2, 3, 3, 3, 2])]
    bench.submit(*jobs)
    bench.loop.settle()
    assert shapes == [(2, 2), (3, 3), (1, 2)]
    assert all(job.is_right for job in jobs)


def test_jobs_without_rows_run_alone() -> None:
    """A request whose inputs share no rows is never put together with another."""
    served, bench = servable(), Bench()
    jobs = [StubJob(served, n) for n in range(3)]
    jobs[1].request = type(jobs[1].request)(jobs[1].request.inputs, 0)
    bench.submit(*jobs)
    bench.loop.settle()
    assert runs(served) == [1, 1, 1]
    assert bench.settled == jobs


@pytest.mark.parametrize("place", range(8))
def test_a_failing_neighbour_hurts_nobody(place: int) -> None:
    """The model fails on one row, at any position: that job alone fails, the others get their own answers."""
    model = StubModel(fails_when=lambda inputs: bool((inputs["x"] == place).any()))
    served, bench = servable(model), Bench()
    jobs = [StubJob(served, n) for n in range(8)]
    bench.submit(*jobs)
    bench.loop.settle()
    assert [error.code for error in jobs[place].errors] == ["model_failed"]
    assert all(job.is_right for job in jobs if job is not jobs[place])
    assert bench.settled == jobs


def test_a_model_that_raises_anything_is_a_model_failure() -> None:
    """An exception of the model's own is the answer `model_failed`, of that job alone."""

    def explode(inputs: Tensors) -> None:
        if (inputs["x"] == 2).any():
            raise ZeroDivisionError

    served, bench = servable(StubModel(before_run=explode)), Bench()
    jobs = [StubJob(served, n) for n in range(4)]
    bench.submit(*jobs)
    bench.loop.settle()
    assert (jobs[2].errors[0].code, jobs[2].errors[0].detail["reason"]) == ("model_failed", "ZeroDivisionError")
    assert all(job.is_right for job in jobs if job is not jobs[2])


def test_a_model_that_is_busy_is_asked_once() -> None:
    """All of a batch hear `overloaded`: asked for each of them again, it would keep the last one waiting for all."""

    def wait(inputs: Tensors) -> None:
        raise OverloadError("overloaded", "Busy.")

    model = StubModel(before_run=wait)
    served, bench = servable(model), Bench()
    jobs = [StubJob(served, n) for n in range(4)]
    bench.submit(*jobs)
    bench.loop.settle()
    assert [error.code for job in jobs for error in job.errors] == ["overloaded"] * 4
    assert runs(served) == [4]
    assert bench.settled == jobs


@pytest.mark.parametrize("wrong", ["fewer", "more", "scalar"])
def test_wrong_row_counts_are_never_dealt_out(wrong: str) -> None:
    """A batch that comes back with another number of rows is run again one by one: nobody gets another's row."""
    model = StubModel()
    run = model.run

    def lie(inputs: Tensors, outputs: tuple[str, ...]) -> dict[str, object]:
        answer = run(inputs, outputs)
        if len(inputs["x"]) == 1:
            return dict(answer)
        y = answer["y"]
        return {"y": {"fewer": y[:-1], "more": np.concatenate([y, y]), "scalar": np.float32(1)}[wrong]}

    model.run = lie  # type: ignore[method-assign,assignment]
    served, bench = servable(model), Bench()
    jobs = [StubJob(served, n) for n in range(4)]
    bench.submit(*jobs)
    bench.loop.settle()
    assert runs(served) == [4, 1, 1, 1, 1]
    assert all(job.is_right for job in jobs)


@pytest.mark.parametrize("place", range(4))
def test_an_answer_that_cannot_be_made_hurts_nobody(place: int) -> None:
    """A job that cannot take its rows (its encoder fails) fails alone."""

    def fail() -> None:
        raise ValueError

    served, bench = servable(), Bench()
    jobs = [StubJob(served, n) for n in range(4)]
    jobs[place].takes = fail
    bench.submit(*jobs)
    bench.loop.settle()
    assert isinstance(jobs[place].errors[0], InternalError)
    assert all(job.is_right for job in jobs if job is not jobs[place])
    assert bench.settled == jobs


def test_jobs_that_are_over_are_not_run() -> None:
    """A caller that left before its batch takes no row of it, and is settled with its mates."""
    served, bench = servable(), Bench()
    jobs = [StubJob(served, n) for n in range(8)]
    bench.submit(*jobs)
    jobs[3].over = jobs[7].over = True
    bench.loop.settle()
    assert runs(served) == [6]
    assert sorted(job.number for job in bench.settled) == list(range(8))
    assert jobs[3].outputs == jobs[7].outputs == []
    assert all(job.is_right for job in jobs if not job.over)


def test_a_slow_version_gathers_while_it_runs() -> None:
    """In the executor, one batch at a time: what comes meanwhile forms the next batch, and other versions go on."""
    slow, fast, bench = servable(in_loop=False), servable(model="fast"), Bench()
    first = StubJob(slow, 1)
    bench.submit(first)
    bench.loop.settle()
    later = [StubJob(slow, n) for n in range(2, 6)]
    quick = StubJob(fast, 9)
    bench.submit(*later, quick)
    bench.loop.settle()
    assert bench.settled == [quick]
    assert len(bench.executor.queue) == 1
    bench.executor.step()
    bench.loop.settle()
    bench.executor.step()
    bench.loop.settle()
    assert runs(slow) == [1, 4]
    assert bench.settled == [quick, first, *later]
    assert all(job.is_right for job in bench.settled)


def test_a_late_result_is_dropped() -> None:
    """A job whose deadline passed while it ran is settled without its rows; its mates get theirs."""
    served, bench = servable(in_loop=False), Bench()
    jobs = [StubJob(served, n) for n in range(3)]
    bench.submit(*jobs)
    bench.loop.settle()
    jobs[1].over = True
    bench.executor.step()
    bench.loop.settle()
    assert jobs[1].outputs == jobs[1].errors == []
    assert jobs[0].is_right
    assert jobs[2].is_right


def test_jobs_do_not_pile_up_behind_a_run_that_never_ends() -> None:
    """While a version hangs, those that gave up leave its queue as others come: memory stays bounded (P4)."""
    served, bench = servable(in_loop=False), Bench()
    bench.submit(StubJob(served, 0))
    bench.loop.settle()
    for n in range(100):
        job = StubJob(served, n)
        bench.submit(job)
        bench.loop.settle()
        job.over = True
    assert len(bench.settled) == 99
    (lane,) = bench.batcher._lanes.values()
    assert len(lane.waiting) == 1


def test_a_run_over_the_bound_leaves_the_loop_at_once_and_returns_after_fast_ones() -> None:
    """One slow run: the next goes to the executor; RETURN_AFTER_RUNS fast ones in a row bring the version back."""
    slow = True

    def wait(_: Tensors) -> None:
        if slow:
            np.linalg.svd(np.ones((200, 200)))

    served, bench = servable(StubModel(before_run=wait)), Bench(max_loop_run_us=200)
    bench.submit(StubJob(served, 1))
    bench.loop.settle()
    (lane,) = bench.batcher._lanes.values()
    assert not lane.in_loop
    slow = False
    lane._max_loop_run_us = 1e9  # whatever else this machine does now is no slow run
    for n in range(RETURN_AFTER_RUNS):
        assert not lane.in_loop
        bench.submit(StubJob(served, n))
        bench.loop.settle()
        bench.executor.step()
        bench.loop.settle()
    assert lane.in_loop
    bench.submit(StubJob(served, 2))
    bench.loop.settle()
    assert bench.executor.queue == []
    assert all(job.is_right for job in bench.settled)


def test_a_slow_run_between_fast_ones_begins_the_count_anew() -> None:
    """The fast runs must follow each other."""
    bench = Bench(max_loop_run_us=100)
    lane = bench.batcher._open_lane(servable())
    lane.note_run(1.0, 1.0, 1)
    for _ in range(RETURN_AFTER_RUNS - 1):
        lane.note_run(1e-6, 1.0, 1)
    lane.note_run(1.0, 1.0, 1)
    for _ in range(RETURN_AFTER_RUNS - 1):
        lane.note_run(1e-6, 1.0, 1)
    assert not lane.in_loop
    lane.note_run(1e-6, 1.0, 1)
    assert lane.in_loop


def test_a_large_batch_over_the_bound_makes_the_next_ones_smaller() -> None:
    """A fast model stays on the loop: its batches shrink to what fits the bound, and grow again after fast runs."""
    bench = Bench(max_loop_run_us=100)
    lane = bench.batcher._open_lane(servable())
    lane.note_run(1.0, 1.0, 64)
    assert lane.in_loop
    jobs = [StubJob(lane.servable, 1) for _ in range(64)]
    lane.waiting.extend(jobs)
    assert len(lane.take()[0]) == 32
    for _ in range(RETURN_AFTER_RUNS):
        lane.note_run(1e-6, 1.0, 32)
    lane.waiting.extend(jobs)
    assert len(lane.take()[0]) == 64


def test_time_spent_aside_is_not_the_models() -> None:
    """A thread that was put aside took its CPU time; one that waited took the time on the wall."""
    assert run_seconds((1.0, 5), (1.1, 5), 0.5) == pytest.approx(0.1)
    assert run_seconds((1.0, 5), (1.1, 6), 0.5) == 0.5
    assert run_seconds((1.0, 5), (1.6, 5), 0.5) == 0.5


def test_a_version_judged_slow_at_its_load_never_comes_into_the_loop() -> None:
    """What the load check found too slow stays in the executor, however fast a few runs are."""
    lane = Bench().batcher._open_lane(servable(in_loop=False))
    for _ in range(3 * RETURN_AFTER_RUNS):
        lane.note_run(1e-6, 1.0, 1)
    assert not lane.in_loop


def test_versions_that_alternate_keep_what_they_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version's request makes nobody forget that this one is slow; after a long rest a lane goes."""
    slow, other, third, bench = servable(), servable(version="2"), servable(version="3"), Bench(max_loop_run_us=1e9)
    bench.submit(StubJob(slow, 1))
    bench.loop.settle()
    lane = bench.batcher._lanes[id(slow)]
    lane.in_loop = False
    bench.submit(StubJob(other, 1))
    bench.loop.settle()
    bench.submit(StubJob(slow, 2))
    bench.loop.settle()
    assert bench.batcher._lanes[id(slow)] is lane
    bench.executor.step()
    bench.loop.settle()
    monkeypatch.setattr(batcher_module, "FORGET_AFTER_S", -1.0)
    bench.submit(StubJob(third, 1))
    assert list(bench.batcher._lanes) == [id(third)]


def test_refused_jobs_are_settled_with_the_turns_others() -> None:
    """`finish` needs no run and no turn of its own."""
    served, bench = servable(), Bench()
    jobs = [StubJob(served, n) for n in range(3)]
    bench.submit(jobs[0])
    bench.batcher.finish(jobs[1])
    bench.submit(jobs[2])
    bench.loop.turn()
    assert len(bench.turns) == 1
    assert sorted(job.number for job in bench.settled) == [0, 1, 2]
    assert runs(served) == [2]


@pytest.mark.parametrize("left", [False, True])
def test_a_batch_from_the_executor_is_answered_together_while_all_wait(left: bool) -> None:
    """Its answers are made in one go, as on the loop; if one caller left meanwhile, each is answered alone."""
    together: list[int] = []

    def answer(batch: Sequence[Any], *_: object) -> bool:
        together.append(len(batch))
        return True

    served, bench = servable(in_loop=False), Bench(answer)
    jobs = [StubJob(served, n) for n in range(4)]
    bench.submit(*jobs)
    bench.loop.turn()
    jobs[1].over = left
    bench.executor.step()
    bench.loop.settle()
    assert together == ([] if left else [4])
    assert [len(job.outputs) for job in jobs] == ([1, 0, 1, 1] if left else [0] * 4)
    assert bench.settled == jobs


def test_an_executor_that_is_closed_fails_the_batch() -> None:
    """At the very end of a process nobody is forgotten: the batch is refused, not lost."""
    served, bench = servable(in_loop=False), Bench()
    bench.executor.closed = True
    jobs = [StubJob(served, n) for n in range(3)]
    bench.submit(*jobs)
    bench.loop.settle()
    assert bench.settled == jobs
    assert all(job.errors[0].code == "internal" for job in jobs)


def test_a_model_that_ends_its_thread_is_survived() -> None:
    """SystemExit in a model's run: its batch fails, the version goes on."""

    def leave(inputs: Tensors) -> None:
        if (inputs["x"] == 13).any():
            raise SystemExit

    served, bench = servable(StubModel(before_run=leave), in_loop=False), Bench()
    bad, good = StubJob(served, 13), StubJob(served, 1)
    for job in (bad, good):
        bench.submit(job)
        bench.loop.settle()
        bench.executor.step()
        bench.loop.settle()
    assert bad.errors[0].code == "internal"
    assert good.is_right


def test_a_queue_of_those_who_left_starts_no_second_run() -> None:
    """Off the loop, one batch at a time: also when, in the turn after a run, those who waited have left and others come
    before the lane goes on."""
    served, bench = servable(batched=False, in_loop=False), Bench()
    first, left, third, fourth = (StubJob(served, n) for n in range(4))
    bench.submit(first)
    bench.loop.turn()
    bench.submit(left)
    bench.loop.turn()
    left.over = True
    bench.executor.step()
    bench.loop.turn()  # the run is back; the turn that goes on is scheduled, not made
    bench.submit(third, fourth)
    bench.loop.turn()
    assert len(bench.executor.queue) == 1
    while bench.executor.queue:
        bench.executor.step()
        bench.loop.settle()
    assert sorted(job.number for job in bench.settled) == [0, 1, 2, 3]
    assert all(job.is_right for job in (first, third, fourth))
