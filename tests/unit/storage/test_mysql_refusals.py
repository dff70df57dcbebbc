"""What MySQL and MariaDB refuse, in our words: each says what, where and what to do, and tells nobody's name."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pymysql
import pytest
from sqlalchemy.exc import DBAPIError

from mariadb.server import Server, serving
from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.http.edge.certificate import TlsFiles, make_self_signed
from modelyard.journal.ports import SpoolPosition
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import mysql_refusals
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record

PASSWORD = "s3cr3t-pa55-ü"


def _guarded(server: Server, password: str) -> str:
    server.query(f"CREATE OR REPLACE USER guarded@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    return server.url("mysql", f"guarded:{password}")


def _no_grant(server: Server) -> str:
    server.query("CREATE OR REPLACE USER n0thing@'127.0.0.1'")
    return server.url("mysql", "n0thing")


def _nobody_listens(_server: Server) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"mysql://root@127.0.0.1:{probe.getsockname()[1]}/mysql"


AT_START: dict[str, tuple[Callable[[Server], str], type[ModelyardError], str]] = {
    "password": (lambda server: _guarded(server, "wr0ng-pa55"), SettingsError, "refuses the login"),
    "user": (lambda server: server.url("mysql", "n0b0dy"), SettingsError, "refuses the login"),
    "grant": (_no_grant, SettingsError, "grant the user"),
    "database": (lambda server: server.url("n0where"), SettingsError, "no database of this name"),
    "no TLS": (lambda server: server.url("mysql") + "?ssl_mode=REQUIRED", SettingsError, "speaks no TLS"),
    "nobody": (_nobody_listens, UnavailableError, "Nobody answers"),
    "option": (lambda server: server.url("mysql") + "?n0nsense=1", SettingsError, "an option that is not known"),
}


def _refused(url: str, folder: Path) -> ModelyardError:
    with pytest.raises(ModelyardError) as caught:
        open_stores(Settings(database=DatabaseSettings(url=url, busy_timeout_s=2)), folder)
    return caught.value


@pytest.mark.parametrize("name", AT_START)
def test_a_start_that_cannot_work_says_why(mariadb: Server, tmp_path: Path, name: str) -> None:
    """One sentence that names the setting; no host, port, user or password of the URL is in it."""
    url_of, kind, words = AT_START[name]
    error = _refused(url_of(mariadb), tmp_path / "data")
    assert type(error) is kind
    assert words in error.message
    assert "`database.url`" in error.message
    said = f"{error.message} {error.detail}"
    for secret in ("127.0.0.1", str(mariadb.port), "guarded", "n0thing", "n0b0dy", "n0where", "pa55", "n0nsense"):
        assert secret not in said


def test_a_password_may_hold_any_letter(mariadb: Server, tmp_path: Path) -> None:
    """It goes to the server as UTF-8."""
    url = mariadb.migrated()
    login = _guarded(mariadb, PASSWORD.replace("ü", "%C3%BC")).rpartition("/")[0]
    name = url.rpartition("/")[2]
    mariadb.query(f"GRANT ALL ON {name}.* TO guarded@'127.0.0.1'")
    open_stores(Settings(database=DatabaseSettings(url=f"{login}/{name}")), tmp_path / "data").close()


@pytest.fixture(scope="module")
def certificate() -> Iterator[tuple[Path, Path]]:
    """A certificate of this machine's, and its key, in a folder of their own that the server's user can read."""
    with tempfile.TemporaryDirectory(prefix="modelyard-tls-") as folder:
        files = TlsFiles(Path(folder, "cert.pem"), Path(folder, "key.pem"))
        make_self_signed(files, ("localhost",), datetime.now(UTC))
        for path, mode in ((Path(folder), 0o755), (files.certificate, 0o644), (files.key, 0o644)):
            path.chmod(mode)
        yield files.certificate, files.key


@pytest.fixture(scope="module")
def secured(certificate: tuple[Path, Path]) -> Iterator[Server]:
    """A server with TLS."""
    with serving(f"--ssl-cert={certificate[0]}", f"--ssl-key={certificate[1]}") as running:
        yield running


def test_a_server_that_proves_who_it_is_is_spoken_to(
    secured: Server, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    """By name and authority: the connection is encrypted."""
    url = secured.empty().replace("127.0.0.1", "localhost") + f"?ssl_ca={certificate[0]}"
    database = Database(url, 2)
    database.open()
    with database.read() as connection:
        assert connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1].startswith("TLS")
    database.close()


def test_a_server_that_does_not_is_refused(secured: Server, tmp_path: Path) -> None:
    """An authority that is not ours; one sentence, at the start."""
    for mode in ("VERIFY_IDENTITY", "VERIFY_CA"):
        error = _refused(f"{secured.empty()}?ssl_mode={mode}", tmp_path / "data")
        assert isinstance(error, SettingsError)
        assert "does not prove who it is" in error.message
        assert "127.0.0.1" not in error.message


def test_a_server_for_tls_alone_says_so(secured: Server, tmp_path: Path) -> None:
    """Where the server demands TLS, and the URL, being of this machine, does not ask for it. MariaDB calls that a login
    that failed."""
    secured.query("SET GLOBAL require_secure_transport = ON")
    try:
        error = _refused(secured.url("mysql"), tmp_path / "data")
    finally:
        secured.query("SET GLOBAL require_secure_transport = OFF")
    assert isinstance(error, SettingsError)
    assert "`ssl_mode`" in error.message


_CHANGE = "ALTER TABLE {{name}}.predictions CHANGE {} {} VARCHAR(255) NOT NULL"


@contextmanager
def _opened(url: str, folder: Path) -> Iterator[Callable[[], object]]:
    stores = open_stores(Settings(database=DatabaseSettings(url=url, busy_timeout_s=1)), folder)
    yield lambda: stores.sink.store([prediction_record()], SpoolPosition("f", 1))
    stores.close()


@pytest.mark.parametrize(
    ("damage", "mended", "words"),
    [
        ("RENAME TABLE {name}.predictions TO {name}.p", "RENAME TABLE {name}.p TO {name}.predictions", "lacks a table"),
        (
            "RENAME TABLE {name}.spool_positions TO {name}.s",
            "RENAME TABLE {name}.s TO {name}.spool_positions",
            "lacks a",
        ),
        (_CHANGE.format("flag", "gone"), _CHANGE.format("gone", "flag"), "lacks a table or column"),
        ("REVOKE ALL ON {name}.* FROM {user}", "DROP USER {user}", "grant the user"),
        ("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0", "read-only"),
    ],
)
def test_what_breaks_later_is_store_unavailable(
    mariadb: Server, tmp_path: Path, damage: str, mended: str, words: str
) -> None:
    """A 503 with Retry-After and our words, never `internal`: the record stays in the spool until it is mended."""
    name = mariadb.migrated().rpartition("/")[2]
    user = "owner@'127.0.0.1'"
    mariadb.queries(None, f"CREATE OR REPLACE USER {user}", f"GRANT ALL ON {name}.* TO {user}")
    with _opened(mariadb.url(name, "owner"), tmp_path / "data") as store:
        mariadb.query(damage.format(name=name, user=user))
        _cut(mariadb, "owner")
        try:
            with pytest.raises(UnavailableError, match=words) as caught:
                store()
        finally:
            mariadb.query(mended.format(name=name, user=user))
    assert (caught.value.code, caught.value.retry_after_s) == ("store_unavailable", 1.0)
    assert "owner" not in caught.value.message


def _cut(server: Server, user: str) -> None:
    server.query(f"KILL CONNECTION USER '{user}'")


def test_a_schema_of_a_newer_program_is_refused(mariadb: Server, tmp_path: Path) -> None:
    """Nothing in it is touched."""
    url = mariadb.migrated()
    newer = (f"UPDATE {table} SET version_num = '9999'" for table in ("schema_revision", "alembic_version"))
    mariadb.queries(url.rpartition("/")[2], *newer)
    error = _refused(url, tmp_path / "data")
    assert (error.code, error.detail["got"]) == ("data_folder_unusable", "9999")


def test_connections_are_made_again(mariadb: Server, tmp_path: Path) -> None:
    """What the server cut is noticed before it is used: nobody sees an error."""
    with _opened(mariadb.migrated(), tmp_path / "data") as store:
        store()
        _cut(mariadb, "root")
        store()


_COLUMNS = "information_schema.columns"
_LONG = f"SELECT count(*) FROM {_COLUMNS} a, {_COLUMNS} b, {_COLUMNS} c"


def test_a_slow_statement_is_ended(mariadb: Server) -> None:
    """Twice the bound of a lock, a second at least, then store_unavailable."""
    database = Database(mariadb.migrated(), 0.01)
    with pytest.raises(UnavailableError, match="too long"), database.read() as connection:
        connection.exec_driver_sql(_LONG)
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO snapshot (id, version) VALUES (2, 1)",
        "INSERT INTO snapshot (id, version) VALUES (1, 1)",
        "INSERT INTO endpoints VALUES ('e', 'no such model', 1)",
        "INSERT INTO models VALUES (REPEAT('x', 129))",
        "INSERT INTO models VALUES (NULL)",
        "SELEC 1",
    ],
)
def test_a_statement_of_ours_that_is_wrong_is_internal(mariadb: Server, statement: str) -> None:
    """A broken constraint, a text that is too long (never cut), bad SQL: our fault, not the database's."""
    database = Database(mariadb.migrated(), 2)
    with pytest.raises(InternalError), database.write() as connection:
        connection.exec_driver_sql(statement)
    database.close()


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (1130, SettingsError, "does not let this machine in"),
        (1251, SettingsError, "a kind of login"),
        (1290, SettingsError, "read-only"),
        (1665, SettingsError, "binlog_format"),
        (3159, SettingsError, "without TLS"),
        (1040, UnavailableError, "no connection left"),
        (1053, UnavailableError, "starting or stopping"),
        (1114, UnavailableError, "no space left"),
        (1153, UnavailableError, "max_allowed_packet"),
        (1213, UnavailableError, "locked by another transaction"),
        (3024, UnavailableError, "too long for a statement"),
        (2013, UnavailableError, "connection to it failed"),
        (1927, UnavailableError, "connection to it failed"),
    ],
)
def test_what_a_server_here_does_not_say(number: int, kind: type[ModelyardError], words: str) -> None:
    """Numbers that this machine cannot provoke, or not soon."""
    error = DBAPIError.instance(None, None, pymysql.err.OperationalError(number, "of h0st and us3r"), pymysql.Error)
    assert isinstance(error, DBAPIError)
    refused = mysql_refusals.at_start(error)
    assert type(refused) is kind
    assert words in refused.message
    assert "h0st" not in refused.message
    assert isinstance(mysql_refusals.later(error), UnavailableError)


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (socket.gaierror(-2, "h0st"), SettingsError, "name is not known"),
        (TimeoutError("h0st"), UnavailableError, "does not answer in time"),
        (FileNotFoundError("a s0cket"), UnavailableError, "Nobody answers"),
        (ConnectionRefusedError("h0st"), UnavailableError, "Nobody answers"),
        (ConnectionResetError("h0st"), UnavailableError, "connection to it failed"),
    ],
)
def test_what_the_client_found_by_itself(cause: Exception, kind: type[ModelyardError], words: str) -> None:
    """By the exception behind PyMySQL's."""
    behind = pymysql.err.OperationalError(2003, "of h0st")
    behind.original_exception = cause  # type: ignore[attr-defined]
    error = DBAPIError.instance(None, None, behind, pymysql.Error)
    assert isinstance(error, DBAPIError)
    refused = mysql_refusals.at_start(error)
    assert type(refused) is kind
    assert words in refused.message
