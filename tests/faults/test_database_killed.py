"""kill -9 of the database server, while callers ask (F1), and a server that says nothing any more: predictions go on
into the spool, and all of them drain. DynamoDB, an emulator's, is not killed, as nobody can: it fails, or is silent."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acknowledged import Callers, Server, balance, breast_cancer, until

from dynamo.emulator import Dynamo, emulating
from mariadb import server as mariadb
from postgres import server as postgres

SEED = 20261128
KILLS = 3
OUTAGES = {
    "postgresql": ("kill",) * KILLS,
    "mysql": ("kill", "pause", "kill"),
    "dynamodb": ("kill", "pause", "kill", "pause"),
}
WITHIN_S = 30.0
EMULATED_PAUSE_S = 0.1
"""Of callers whose records an emulator stores: it takes a hundred a second, one at a time."""


class Tables:
    """DynamoDB's tables, with a process of their own. What fails may have been done all the same."""

    def __init__(self, dynamo: Dynamo) -> None:
        self._dynamo = dynamo

    def empty(self) -> str:
        """The URL of new ones."""
        return self._dynamo.tables()

    def settings(self, url: str) -> dict[str, str]:
        """How to reach them."""
        return self._dynamo.variables(url)

    def kill(self) -> None:
        """From now on all requests fail."""
        fault = {"times": 10**6, "status": 500, "code": "InternalServerError"}
        self._dynamo.fail({**fault, "target": "BatchWriteItem", "applied": True}, {**fault, "target": ""})

    def start(self) -> None:
        """They do no longer."""
        self._dynamo.fail()

    def pause(self) -> None:
        """Connections stay, answers do not come."""
        os.kill(self._dynamo.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """They come."""
        os.kill(self._dynamo.process.pid, signal.SIGCONT)


Database = postgres.Server | mariadb.Server | Tables


@pytest.fixture
def outages(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What happens to the database, one after the other."""
    return OUTAGES[getattr(request, "param", "postgresql")]


@pytest.fixture
def database(outages: tuple[str, ...]) -> Iterator[Database]:
    """A server that may be killed."""
    if outages == OUTAGES["dynamodb"]:
        with emulating() as dynamo:
            yield Tables(dynamo)
        return
    with mariadb.serving() if outages == OUTAGES["mysql"] else postgres.serving() as running:
        yield running


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Iterator[Server]:
    """Two workers, not started; ended at the end."""
    url = database.empty()
    settings = database.settings(url) if isinstance(database, Tables) else {"MODELYARD_DATABASE__URL": url}
    settings["MODELYARD_DATABASE__BUSY_TIMEOUT_S"] = "2"
    made = Server(tmp_path, settings={**settings, **getattr(request, "param", {})})
    yield made
    made.end()


@pytest.mark.parametrize(
    ("outages", "server"),
    [
        ("postgresql", {}),
        ("mysql", {"MODELYARD_DATABASE__BUSY_TIMEOUT_S": "1"}),
        pytest.param(
            "dynamodb",
            {"MODELYARD_DATABASE__BUSY_TIMEOUT_S": "3"},
            marks=pytest.mark.long,
        ),
    ],
    indirect=True,
    ids=OUTAGES,
)
def test_predictions_go_on_without_their_database(
    server: Server, database: Database, outages: tuple[str, ...], tmp_path: Path
) -> None:
    """F1 P1 P11: the server of the database dies, or stops, three times under load; callers are answered meanwhile, and
    once it is back every acknowledged prediction is stored within half a minute, exactly once."""
    chance = random.Random(SEED)
    pause_s = EMULATED_PAUSE_S if isinstance(database, Tables) else 0.0
    callers = Callers(server, server.publish(breast_cancer().content), breast_cancer(), seed=SEED, pause_s=pause_s)
    server.start()
    callers.start()
    took = []
    try:
        for outage in outages:
            goal = len(callers.acknowledged) + chance.randrange(50, 200)
            until(lambda goal=goal: len(callers.acknowledged) >= goal, WITHIN_S, "callers are answered")
            time.sleep(chance.random() * 0.1)  # the point: anywhere in a transaction of the drain
            failures = server.log.read_text().count("drain.store_failed")
            getattr(database, outage)()
            goal, begun = len(callers.acknowledged) + 100, time.monotonic()
            until(lambda goal=goal: len(callers.acknowledged) >= goal, WITHIN_S, "callers are answered without it")
            until(
                lambda seen=failures: server.log.read_text().count("drain.store_failed") > seen,
                WITHIN_S,
                "the drain notices",
            )
            getattr(database, "resume" if outage == "pause" else "start")()
            took.append(time.monotonic() - begun)
    finally:
        callers.stop()

    def stored() -> bool:
        count = json.loads(server.command("predictions", "count", "--status", "2", "--json"))["count"]
        return int(count) >= len(callers.acknowledged)

    drained_s = until(stored, WITHIN_S, "all of it is stored")
    assert server.stop() == 0
    books = balance(server, callers, tmp_path / "log.jsonl")
    print(
        f"\n{', '.join(outages)}, seed {SEED}: requests {callers.requests}, cut {callers.cut}, acknowledged "
        f"{len(callers.acknowledged)}, logged {books.logged}, lost {len(books.missing)}, doubled {len(books.twice)}; "
        f"outages {', '.join(f'{one:.1f} s' for one in took)}; all stored {drained_s:.1f} s after the last"
    )
    assert callers.wrong == []
    assert (books.twice, books.missing, books.different) == ([], [], [])
    assert callers.cut == 0


@pytest.mark.parametrize(
    "outages",
    ["postgresql", *(pytest.param(name, marks=pytest.mark.long) for name in ("mysql", "dynamodb"))],
    indirect=True,
    ids=OUTAGES,
)
@pytest.mark.parametrize("server", [{"MODELYARD_JOURNAL__DURABILITY": "store"}], indirect=True, ids=["store"])
def test_without_a_spool_nobody_is_answered_meanwhile(server: Server, database: Database, tmp_path: Path) -> None:
    """`journal.durability = store`: while the database is away nobody is answered with 200, once it is back callers
    are, and each acknowledged prediction is a row of it at once, exactly once."""
    chance = random.Random(SEED)
    callers = Callers(server, server.publish(breast_cancer().content), breast_cancer(), seed=SEED)
    server.start()
    callers.start()
    meanwhile = []
    try:
        for _ in range(KILLS):
            goal = len(callers.acknowledged) + chance.randrange(50, 200)
            until(lambda goal=goal: len(callers.acknowledged) >= goal, WITHIN_S, "callers are answered")
            time.sleep(chance.random() * 0.05)  # the point: anywhere in a transaction
            refused = server.log.read_text().count("journal.refused")
            database.kill()
            until(lambda seen=refused: server.log.read_text().count("journal.refused") > seen, WITHIN_S, "it is seen")
            answered, asked = len(callers.acknowledged), callers.requests
            until(lambda asked=asked: callers.requests >= asked + 40, WITHIN_S, "callers are refused")
            meanwhile.append(len(callers.acknowledged) - answered)
            database.start()
    finally:
        callers.stop()
    count = json.loads(server.command("predictions", "count", "--status", "2", "--json"))["count"]
    assert int(count) >= len(callers.acknowledged)
    assert server.stop() == 0
    books = balance(server, callers, tmp_path / "log.jsonl")
    print(
        f"\nkills {KILLS}, seed {SEED}: requests {callers.requests}, acknowledged {len(callers.acknowledged)}, logged "
        f"{books.logged}, lost {len(books.missing)}, doubled {len(books.twice)}; answered meanwhile {meanwhile}"
    )
    assert meanwhile == [0] * KILLS
    assert callers.wrong == []
    assert (books.twice, books.missing, books.different) == ([], [], [])
