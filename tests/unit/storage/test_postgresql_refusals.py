"""What PostgreSQL refuses, in our words: each says what, where and what to do, and tells nobody's name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.journal.ports import SpoolPosition
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import postgresql_refusals
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record
from postgres.server import Server

PASSWORD = "s3cr3t-pa55"


def _wrong_password(server: Server) -> str:
    if server.query("SELECT count(*) FROM pg_roles WHERE rolname = 'guarded'") == "0":
        server.query(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
    return server.url("postgres", "guarded:wr0ng-pa55")


def _not_let_in(server: Server) -> str:
    return server.url("postgres", "unwanted")


def _nobody_listens(_server: Server) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"postgresql://postgres@127.0.0.1:{probe.getsockname()[1]}/postgres"


AT_START: dict[str, tuple[Callable[[Server], str], type[ModelyardError], str]] = {
    "password": (_wrong_password, SettingsError, "refuses the login"),
    "user": (lambda server: server.url("postgres", "n0b0dy"), SettingsError, "refuses the login"),
    "not let in": (_not_let_in, SettingsError, "does not let this machine in"),
    "database": (lambda server: server.url("n0where"), SettingsError, "no database of this name"),
    "no TLS": (lambda server: server.url("postgres") + "?sslmode=require", SettingsError, "speaks no TLS"),
    "sslmode": (lambda server: server.url("postgres") + "?sslmode=s0me", SettingsError, "client library"),
    "option": (lambda server: server.url("postgres") + "?n0nsense=1", SettingsError, "client library"),
    "nobody": (_nobody_listens, UnavailableError, "Nobody answers"),
}


@pytest.mark.parametrize("name", AT_START)
def test_a_start_that_cannot_work_says_why(postgres: Server, tmp_path: Path, name: str) -> None:
    """One sentence that names the setting; no host, port, user or password of the URL is in it."""
    url_of, kind, words = AT_START[name]
    url = url_of(postgres)
    with pytest.raises(kind) as caught:
        open_stores(Settings(database=DatabaseSettings(url=url, busy_timeout_s=2)), tmp_path / "data")
    error = caught.value
    assert words in error.message
    assert "`database.url`" in error.message
    said = f"{error.message} {error.detail}"
    for secret in ("127.0.0.1", str(postgres.port), "guarded", "unwanted", "n0b0dy", "n0where", "pa55", "n0nsense"):
        assert secret not in said


@contextmanager
def _opened(url: str, folder: Path) -> Iterator[Callable[[], object]]:
    stores = open_stores(Settings(database=DatabaseSettings(url=url, busy_timeout_s=1)), folder)
    yield lambda: stores.sink.store([prediction_record()], SpoolPosition("f", 1))
    stores.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DROP TABLE predictions CASCADE", "lacks a table"),
        ("DROP TABLE spool_positions", "lacks a table"),
        ("ALTER TABLE predictions RENAME COLUMN flag TO flagged", "lacks a table or column"),
        ("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM owner", "refuses its user"),
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "read-only"),
    ],
)
def test_what_breaks_later_is_store_unavailable(postgres: Server, tmp_path: Path, damage: str, words: str) -> None:
    """A 503 with Retry-After and our words, never `internal`: the record stays in the spool until it is mended."""
    url = postgres.migrated()
    name = url.rpartition("/")[2]
    if postgres.query("SELECT count(*) FROM pg_roles WHERE rolname = 'owner'") == "0":
        postgres.query("CREATE ROLE owner LOGIN")
    postgres.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO owner", name)
    with _opened(postgres.url(name, "owner"), tmp_path / "data") as store:
        postgres.query(damage.format(name=name), name)
        postgres.query(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(UnavailableError, match=words) as caught:
            store()
    assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 1.0)
    assert "owner" not in caught.value.message.replace("the owner of its tables", "")


def test_connections_are_made_again(postgres: Server, tmp_path: Path) -> None:
    """What the server cut is noticed before it is used: nobody sees an error."""
    url = postgres.migrated()
    name = url.rpartition("/")[2]
    with _opened(url, tmp_path / "data") as store:
        store()
        postgres.query(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'")
        store()


def test_a_slow_statement_is_ended(postgres: Server) -> None:
    """After `busy_timeout_s`, store_unavailable."""
    database = Database(postgres.empty(), 0.01)
    with pytest.raises(UnavailableError, match="too long"), database.read() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(30)")
    database.close()


def test_a_statement_of_ours_that_is_wrong_is_internal(postgres: Server) -> None:
    """A broken constraint is our fault, not the database's."""
    database = Database(postgres.migrated(), 2)
    with pytest.raises(InternalError), database.write() as connection:
        connection.exec_driver_sql("INSERT INTO snapshot (id, version) VALUES (2, 1)")
    database.close()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("failed to resolve host 'h': [Errno -2] Name or service not known", SettingsError, "name is not known"),
        ("connection failed: SSL error: tlsv1 alert unknown ca", SettingsError, "does not prove who it is"),
        ("connection timeout expired", UnavailableError, "does not answer in time"),
        ("connection failed: FATAL: the database system is starting up", UnavailableError, "starting"),
        ("connection failed: FATAL: sorry, too many clients already", UnavailableError, "no connection left"),
        ("connection failed: FATAL: remaining connection slots are reserved", UnavailableError, "no connection left"),
        ("consuming input failed: server closed the connection", UnavailableError, "connection to it failed"),
    ],
)
def test_what_a_server_here_does_not_say(text: str, kind: type[ModelyardError], words: str) -> None:
    """Texts of libpq that this machine cannot provoke."""
    error = DBAPIError.instance(None, None, psycopg.OperationalError(text), psycopg.Error)
    assert isinstance(error, DBAPIError)
    refused = postgresql_refusals.at_start(error)
    assert type(refused) is kind
    assert words in refused.message
    assert isinstance(postgresql_refusals.later(error), UnavailableError)
