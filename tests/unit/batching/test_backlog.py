"""How many rows may wait for a version that is too slow for the loop (P4): arithmetic, without a clock."""

from __future__ import annotations

import pytest
from batch_jobs import Bench, StubJob

from modelyard.batching.backlog import LEARN, LEAST_ROWS, Backlog
from modelyard.core.types import LoadProfile
from modelyard.testing import servable

EACH_10_MS = LoadProfile(batched=True, in_loop=False, run_us_1=10_000, run_us_32=320_000)
"""Ten milliseconds a row, whatever the batch."""
TOGETHER = LoadProfile(batched=True, in_loop=False, run_us_1=5_000, run_us_32=8_100)
"""Five milliseconds a run, and a tenth more for each row."""


def test_as_many_rows_as_are_done_in_time() -> None:
    """A hundred milliseconds hold ten rows of ten; where a batch costs little more than a row, far more."""
    assert Backlog(EACH_10_MS, 128, 0.1).room == 10
    assert Backlog(EACH_10_MS, 128, 1.0).room == 100
    assert 600 < Backlog(TOGETHER, 128, 0.1).room < 700
    alone = LoadProfile(batched=False, in_loop=False, run_us_1=10_000, run_us_32=11_000)
    assert Backlog(alone, 128, 0.1).room == 10


def test_a_slow_version_serves_a_few_callers_at_once() -> None:
    """A second a row: there is no tenth of a second, yet eight rows may be there."""
    slow = LoadProfile(batched=True, in_loop=False, run_us_1=1e6, run_us_32=32e6)
    assert Backlog(slow, 128, 0.1).room == LEAST_ROWS


def test_who_comes_first_has_room() -> None:
    """One request of more rows than would be done in time runs if nobody else is there; beside it nobody has room."""
    backlog = Backlog(EACH_10_MS, 128, 0.1)
    assert backlog.has_room(1000)
    backlog.running = 1000
    assert not backlog.has_room(1)


def test_running_and_waiting_rows_count_alike() -> None:
    """Ten rows have room: whatever runs or waits already takes of them."""
    backlog = Backlog(EACH_10_MS, 128, 0.1)
    backlog.running, backlog.waiting = 4, 5
    assert backlog.has_room(1)
    assert not backlog.has_room(2)


def test_it_learns_what_runs_take_these_days() -> None:
    """Runs that take twice as long leave half the room, and it comes back with them."""
    backlog = Backlog(EACH_10_MS, 128, 0.2)
    for _ in range(40):
        backlog.note_run(0.160, 8)
    assert backlog.room == 10
    for _ in range(60):
        backlog.note_run(0.080, 8)
    assert backlog.room == 19 or backlog.room == 20


def test_a_hiccup_is_no_new_speed() -> None:
    """One run that hung for a minute counts as one that was four times slower."""
    backlog = Backlog(EACH_10_MS, 128, 1.0)
    backlog.note_run(60.0, 1)
    assert backlog.room == int(100 / (1 + 3 * LEARN))


@pytest.mark.parametrize(("places", "surplus"), [(1, 1), (4, 3), (16, 40)])
def test_exactly_the_surplus_of_a_queue_is_refused(places: int, surplus: int) -> None:
    """L4: one runs and q wait; of q + k that come, exactly k are refused, in the same turn; then q have room again."""
    served, bench = servable(in_loop=False), Bench(max_queue=places)
    for _ in range(3):
        bench.turns.clear()
        bench.submit(StubJob(served, 0))
        bench.loop.settle()
        jobs = [StubJob(served, number) for number in range(places + surplus)]
        bench.submit(*jobs)
        bench.loop.turn()
        assert bench.settled == jobs[places:]
        assert {job.errors[0].code for job in bench.settled} == {"overloaded"}
        assert all((job.errors[0].retry_after_s or 0) >= 1 for job in bench.settled)
        assert list(bench.batcher.full) == [id(served)]
        while bench.executor.queue:
            bench.executor.step()
            bench.loop.settle()
        assert all(job.is_right for job in jobs[:places])
        assert not bench.batcher.full


def test_a_burst_within_one_turn_is_bounded_too() -> None:
    """Nothing runs yet and all come in one turn: as many as are done in time wait, the others are refused."""
    served, bench = servable(in_loop=False), Bench(max_rows=4, max_wait_ms=0.005)
    jobs = [StubJob(served, number) for number in range(30)]
    bench.submit(*jobs)
    bench.loop.turn()
    assert bench.settled == jobs[LEAST_ROWS:]


def test_those_that_left_make_room() -> None:
    """Waiting jobs whose callers left don't count any more."""
    served, bench = servable(in_loop=False), Bench(max_queue=3)
    bench.submit(StubJob(served, 0))
    bench.loop.settle()
    gone = [StubJob(served, number) for number in range(3)]
    bench.submit(*gone)
    for job in gone:
        job.over = True
    job = StubJob(served, 9)
    bench.submit(job)
    bench.loop.turn()
    assert bench.settled == gone
    assert not job.errors


def test_another_version_is_not_touched() -> None:
    """A full queue is one version's own."""
    slow, other, bench = servable(in_loop=False), servable(version="2", in_loop=False), Bench(max_queue=1)
    bench.submit(StubJob(slow, 0))
    bench.loop.settle()
    bench.submit(*(StubJob(slow, number) for number in range(3)))
    job = StubJob(other, 5)
    bench.submit(job)
    bench.loop.turn()
    assert len(bench.settled) == 2
    assert not job.errors


def test_a_run_that_filled_all_room_leaves_it_when_it_ends() -> None:
    """Nobody waits behind a run that alone takes all room; once it is over, the next ones are not refused for it."""
    served, bench = servable(in_loop=False), Bench(max_wait_ms=0.005)
    bench.submit(*(StubJob(served, number) for number in range(LEAST_ROWS)))
    bench.loop.settle()
    refused, job = StubJob(served, 8), StubJob(served, 9)
    bench.submit(refused)
    bench.loop.settle()
    assert bench.settled == [refused]
    assert bench.batcher.full
    bench.executor.step()
    bench.loop.settle()
    assert not bench.batcher.full
    bench.submit(job)
    bench.loop.settle()
    bench.executor.step()
    bench.loop.settle()
    assert job.is_right
