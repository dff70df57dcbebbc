"""kill -9 of everything, while callers ask: what was acknowledged is on record, once, as it was given (P1)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acknowledged import Callers, Server, age_s, alive, balance, breast_cancer, until

SEED = 20261124
ORPHANS_WITHIN_S = 5.0
STARTING_S = 10.0
"""A process younger than this may still be importing, and sees that its parent died when it has done so."""
SUCCESSOR_WITHIN_S = 2.0
READY_WITHIN_S = 30.0
SHORT = ["parent"] * 2 + ["worker"] * 4 + ["drain"] * 4
STORE = ["parent"] + ["worker"] * 3
LONG = ["parent", "worker", "drain"] * 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two workers, not started; ended at the end."""
    made = Server(tmp_path)
    yield made
    made.end()


class Killer:
    """Kills one role and sees that what must come after it comes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.slowest = {"parent": 0.0, "worker": 0.0, "drain": 0.0}

    def kill(self, role: str) -> None:
        """One kill -9."""
        took = getattr(self, f"_{role}")()
        self.slowest[role] = max(self.slowest[role], took)

    def _worker(self) -> float:
        """A successor comes by itself."""
        server, before = self.server, set(self.server.worker_pids())
        os.kill(random.Random(len(before)).choice(sorted(before)), signal.SIGKILL)
        until(lambda: len(server.worker_pids()) < server.workers, 5, "the worker dies")
        return until(lambda: set(server.worker_pids()) - before, SUCCESSOR_WITHIN_S, "a worker's successor comes")

    def _drain(self) -> float:
        server = self.server
        until(server.drain_pids, READY_WITHIN_S, "a drain runs")
        (before,) = server.drain_pids()
        os.kill(before, signal.SIGKILL)
        return until(
            lambda: server.drain_pids() not in ([], [before]), SUCCESSOR_WITHIN_S, "the drain's successor comes"
        )

    def _parent(self) -> float:
        """No orphan is left, and a new server starts on the folder and the same port."""
        server = self.server
        family = [*server.worker_pids(), *server.drain_pids()]
        assert family
        grown = min(map(age_s, family)) > STARTING_S
        server.kill()
        took = until(
            lambda: not any(map(alive, family)), ORPHANS_WITHIN_S + (0 if grown else STARTING_S), "the orphans end"
        )
        server.start()
        return took


def run(server: Server, tmp_path: Path, roles: list[str], seed: int) -> None:
    """Kills the roles in a shuffled order at points that the seed chooses, then compares the books."""
    chance = random.Random(seed)
    order = chance.sample(roles, len(roles))
    callers = Callers(server, server.prepare(breast_cancer().content), breast_cancer(), seed=seed)
    server.start()
    killer = Killer(server)
    callers.start()
    try:
        for role in order:
            goal = len(callers.acknowledged) + chance.randrange(20, 200)
            until(lambda goal=goal: len(callers.acknowledged) >= goal, READY_WITHIN_S, "callers are answered")
            time.sleep(chance.random() * 0.1)  # the point: anywhere in a turn of the loop, or of the drain
            killer.kill(role)
        goal = len(callers.acknowledged) + 100
        until(lambda: len(callers.acknowledged) >= goal, READY_WITHIN_S, "callers are answered after the last kill")
        until(lambda: len(server.worker_pids()) == server.workers, READY_WITHIN_S, "all workers are back")
    finally:
        callers.stop()
    assert server.stop() == 0
    books = balance(server, callers, tmp_path / "log.jsonl")
    counts = ", ".join(f"{role} {order.count(role)}" for role in sorted(set(order)))
    slowest = ", ".join(f"{role} {took:.2f} s" for role, took in killer.slowest.items())
    print(
        f"\nkills {len(order)} ({counts}), seed {seed}: requests {callers.requests}, cut {callers.cut}, acknowledged "
        f"{len(callers.acknowledged)}, logged {books.logged}; slowest recovery: {slowest}"
    )
    assert callers.wrong == []
    assert (books.twice, books.missing, books.different) == ([], [], [])
    assert list((server.data / "spool").glob("*.damaged")) == []
    assert len(callers.acknowledged) >= 20 * len(order)


def test_acknowledged_predictions_survive_ten_kills(server: Server, tmp_path: Path) -> None:
    """Ten kills over parent, worker and drain under load: every acknowledged prediction is in the log exactly once
    with the answer that was given; successors come by themselves, orphans end."""
    run(server, tmp_path, SHORT, SEED)


def test_what_the_database_acknowledged_survives_kills(tmp_path: Path) -> None:
    """The same with `journal.durability = store`, where no spool lies between answer and database: after each kill, of
    workers and the parent, all that was acknowledged is in the database before anything is drained."""
    made = Server(tmp_path, settings={"MODELYARD_JOURNAL__DURABILITY": "store"})
    try:
        run(made, tmp_path, STORE, SEED + 3)
        assert list((made.data / "spool").glob("*.spool")) == []
    finally:
        made.end()


@pytest.mark.long
@pytest.mark.parametrize("seed", [SEED + 1, SEED + 2])
def test_acknowledged_predictions_survive_thirty_kills(server: Server, tmp_path: Path, seed: int) -> None:
    """The same with ten kills of each role."""
    run(server, tmp_path, LONG, seed)
