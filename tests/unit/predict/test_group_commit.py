"""Answers leave only after a sync that began after their write; a sync that fails lets none leave (P1)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from modelyard.journal.durability.commit import GroupCommit, commit_at_once


class Disk(Executor):
    """Runs a sync when told, and writes down what happened in which order. Also the loop: calls back at once."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.queue: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.broken: list[BaseException] = []
        self.error: Exception | None = None
        self.commit = GroupCommit(self, self, self.sync, self.broken.append)  # type: ignore[arg-type]

    def submit(self, call: Callable[..., Any], *_: Any, **__: Any) -> Future[Any]:  # type: ignore[override]
        """A sync is on its way."""
        future: Future[Any] = Future()
        self.queue.append((future, call))
        return future

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        """The loop's."""
        call(*arguments)

    def sync(self) -> None:
        """fdatasync."""
        self.happened.append("sync")
        if self.error is not None:
            raise self.error

    def step(self) -> None:
        """The oldest sync runs to its end."""
        future, call = self.queue.pop(0)
        try:
            result = call()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def turn(self, name: str) -> None:
        """A turn of the loop: its records are written, then its answers are to leave."""
        self.happened.append(f"write {name}")
        self.commit(lambda: self.happened.append(f"answer {name}"), self.broken.append)


def test_at_once() -> None:
    """`process`: the write is enough."""
    happened: list[str] = []
    commit_at_once(lambda: happened.append("answer"), lambda error: happened.append("refuse"))
    assert happened == ["answer"]


def test_an_answer_waits_for_its_sync() -> None:
    """Nothing leaves before the disk said yes."""
    disk = Disk()
    disk.turn("a")
    assert disk.happened == ["write a"]
    disk.step()
    assert disk.happened == ["write a", "sync", "answer a"]


def test_turns_that_come_during_a_sync_share_the_next() -> None:
    """A sync that began before the write proves nothing: they wait for the next one, all of them for the same."""
    disk = Disk()
    disk.turn("a")
    disk.turn("b")
    disk.turn("c")
    assert len(disk.queue) == 1
    disk.step()
    assert disk.happened[-2:] == ["sync", "answer a"]
    assert len(disk.queue) == 1
    disk.step()
    assert disk.happened[-3:] == ["sync", "answer b", "answer c"]
    assert disk.queue == []


def test_every_answer_follows_a_sync_after_its_write() -> None:
    """Turns and syncs in any order: between a turn's write and its answer lies the whole of a sync (seeded)."""
    import random

    for seed in range(200):
        chance, disk, turns = random.Random(seed), Disk(), 0
        while turns < 12 or disk.queue:
            if turns < 12 and (not disk.queue or chance.random() < 0.6):
                disk.turn(str(turns))
                turns += 1
            else:
                disk.step()
        for n in range(12):
            write, answer = disk.happened.index(f"write {n}"), disk.happened.index(f"answer {n}")
            assert "sync" in disk.happened[write:answer], (seed, disk.happened)


@pytest.mark.parametrize("error", [OSError(5, "EIO"), RuntimeError("x")])
def test_a_sync_that_fails_delivers_nothing_ever_again(error: Exception) -> None:
    """After a failed fdatasync no answer leaves, neither those that waited nor later ones; the process is told once."""
    disk = Disk()
    disk.turn("a")
    disk.turn("b")
    disk.error = error
    disk.step()
    disk.error = None
    disk.turn("c")
    while disk.queue:
        disk.step()
    assert not [what for what in disk.happened if what.startswith("answer")]
    assert disk.broken == [error]
