"""A database that is slow, then hangs (F2), then takes no writes while another one takes over (F4): predictions go on
into the spool, who asks for the log is told so in bounded time, and afterwards all of it drains."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from acknowledged import Callers, Server, balance, breast_cancer, until
from sqlalchemy import TextClause, text

from modelyard.auth.keys import new_key
from modelyard.core.errors import UnavailableError
from modelyard.storage.sql.database import Database
from postgres.proxy import Proxy, between
from postgres.server import Server as Postgres
from postgres.server import serving

SEED = 20261129
HASTY_S = 0.2
SLOW_S = 0.5
WITHIN_S = 30.0
TOLD_WITHIN_S = 8.0
"""A sign of life and a new connection are each waited for twice `database.busy_timeout_s` at most; and room for a busy
machine."""
NOTICED_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped."""
    with serving() as running:
        yield running


@contextmanager
def hanging(database: Postgres) -> Iterator[None]:
    """Nothing of it moves meanwhile."""
    database.freeze()
    try:
        yield
    finally:
        database.thaw()


def told_unavailable(act: Callable[[], object]) -> float:
    """How long it took to be told that the database does not answer."""
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer in time"):
        act()
    return time.monotonic() - begun


def test_no_wait_for_a_stopped_server_is_endless(database: Postgres) -> None:
    """F2 P4: a statement, a commit, the look at a pooled connection and a new one are each given up in time; another
    try after the server's return succeeds."""
    opened = Database(database.migrated(), HASTY_S)
    count = text("SELECT version FROM snapshot")
    try:
        opened.ping()
        with hanging(database):
            assert told_unavailable(opened.ping) < TOLD_WITHIN_S
        for after in (count, text("SELECT 1")):  # a statement meets the hanging server, or the commit does

            def change(after: TextClause = after) -> None:
                with opened.write() as connection:
                    connection.execute(text("UPDATE snapshot SET version = version + 1"))
                    if after is count:
                        database.freeze()
                    connection.execute(after)
                    if after is not count:
                        database.freeze()

            assert HASTY_S <= told_unavailable(change) < TOLD_WITHIN_S
            database.thaw()
        with opened.read() as connection:
            assert connection.scalar(count) in (0, 1)  # what the commit came to
    finally:
        database.thaw()
        opened.close()


READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"
STORED = "SELECT count(*) FROM predictions WHERE status < 300"
BEHIND = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) FROM pg_stat_replication"


class Unhurried(Callers):
    """Callers that leave the machine to the others now and then."""

    def _one(self, connection: http.client.HTTPConnection, row: int) -> None:
        super()._one(connection, row)
        self._over.wait(0.01)


class Yard:
    """A server with callers that ask without pause, whose database is reached by `wire`."""

    def __init__(self, folder: Path, wire: Proxy, name: str) -> None:
        self._admin = new_key().text
        given = {"DATABASE__URL": wire.url(name), "DATABASE__BUSY_TIMEOUT_S": "1", "AUTH__ADMIN_KEY": self._admin}
        self.server = Server(folder, settings={f"MODELYARD_{setting}": value for setting, value in given.items()})
        key, table = self.server.publish(breast_cancer().content), breast_cancer()
        self.callers = Unhurried(self.server, key, table, threads=2, seed=SEED)
        self.name = name
        self.server.start()
        self.callers.start()

    def answered(self, more: int, what: str) -> None:
        """So many more callers are answered."""
        goal = len(self.callers.acknowledged) + more
        until(lambda: len(self.callers.acknowledged) >= goal, WITHIN_S, f"callers are answered {what}")

    def said(self, text: str) -> int:
        """How often the log says so."""
        return self.server.log.read_text().count(text)

    def stored(self, database: Postgres) -> int:
        """How many records it has."""
        return int(database.query(STORED, self.name))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, float]:
        """The status of an answer to the administrator, and how long it took."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WITHIN_S)
        begun = time.monotonic()
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"x-api-key": self._admin})
            return connection.getresponse().status, time.monotonic() - begun
        finally:
            connection.close()

    def end(self) -> None:
        """Leaves nothing behind."""
        self.callers.stop()
        self.server.end()


@pytest.fixture
def wire(database: Postgres) -> Iterator[Proxy]:
    """The way to the database."""
    with between(database.port) as proxy:
        yield proxy


@pytest.fixture
def yard(database: Postgres, wire: Proxy, tmp_path: Path) -> Iterator[Yard]:
    """It runs."""
    made = Yard(tmp_path, wire, database.empty().rpartition("/")[2])
    yield made
    made.end()


def test_predictions_go_on_whatever_becomes_of_the_database(
    yard: Yard, database: Postgres, wire: Proxy, tmp_path: Path
) -> None:
    """F2 F4 P4 P11: the database answers half a second later, then not at all, then takes no writes any more, which the
    drain says within five seconds; another server takes over behind its address. Callers are answered throughout,
    management gets 503 in bounded time meanwhile, and in the end every record is stored, exactly once."""
    yard.answered(100, "at first")
    wire.delay_s = SLOW_S
    yard.answered(100, "beside a slow database")
    assert yard.ask("GET", "/v1/predictions?limit=1")[0] == 200
    failures = yard.said("drain.store_failed")
    with hanging(database):
        asked = [yard.ask("GET", "/v1/predictions?limit=1"), yard.ask("POST", "/v1/keys", {"client": "late"})]
        yard.answered(100, "beside a database that hangs")
        until(lambda: yard.said("drain.store_failed") > failures, WITHIN_S, "the drain notices")
    wire.delay_s = 0.0
    had = len(yard.callers.acknowledged)
    drained_s = until(lambda: yard.stored(database) >= had, WITHIN_S, "what waited is stored")

    with serving(database) as standby:
        database.query(READ_ONLY)
        database.query("SELECT pg_reload_conf()")
        noticed_s = until(lambda: yard.said("is read-only"), WITHIN_S, "the drain notices")
        until(lambda: database.query(BEHIND) == "0", WITHIN_S, "the standby has it all")
        left = yard.stored(database)
        standby.promote()
        wire.upstream = standby.port
        yard.answered(50, "by the server that took over")
        moved_s = until(lambda: yard.stored(standby) > left, WITHIN_S, "the drain stores there")
        yard.callers.stop()
        had = len(yard.callers.acknowledged)
        until(lambda: yard.stored(standby) >= had, WITHIN_S, "all of it is stored")
        assert yard.ask("POST", "/v1/keys", {"client": "late"})[0] == 201
        assert yard.stored(database) == left
        assert yard.server.stop() == 0
        books = balance(yard.server, yard.callers, tmp_path / "log.jsonl")
    print(
        f"\nrequests {yard.callers.requests}, acknowledged {had}, logged {books.logged}, lost {len(books.missing)}, "
        f"doubled {len(books.twice)}; told after {', '.join(f'{took:.1f} s' for _status, took in asked)}; stored "
        f"{drained_s:.1f} s after the hang; read-only noticed after {noticed_s:.1f} s, stored elsewhere {moved_s:.1f} s"
    )
    assert [status for status, _took in asked] == [503, 503]
    assert max(took for _status, took in asked) < TOLD_WITHIN_S
    assert noticed_s <= NOTICED_WITHIN_S
    assert (yard.callers.wrong, yard.callers.cut) == ([], 0)
    assert (books.twice, books.missing, books.different) == ([], [], [])
