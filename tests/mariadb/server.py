"""A throw-away MariaDB on a free port: one server for a session, databases that are emptied between tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 60
_UNPRIVILEGED = "mysql"
Rows = list[tuple[Any, ...]]


class Server:
    """A running server, in a folder that its own user can read."""

    def __init__(self, binaries: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self._binaries = binaries
        self._folder = folder
        self._options = options
        self._free: list[str] = []
        self._lent: list[str] = []
        self._first: dict[str, Rows] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        made = [f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal", "--skip-test-db", *_user()]
        command = [str(binaries / "mariadb-install-db"), "--no-defaults", *made]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def start(self) -> None:
        """Starts it; returns once it answers."""
        options = [
            f"--datadir={self._folder / 'data'}", "--bind-address=127.0.0.1", f"--port={self.port}",
            f"--socket={self._folder / 's'}", f"--pid-file={self._folder / 'pid'}", "--skip-name-resolve",
            # What is committed is in the system's hands: it survives kill -9, and waits for no disk.
            "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M", *self._options, *_user(),
        ]  # fmt: skip
        program = next(path for path in (self._binaries / "mariadbd", Path("/usr/sbin/mariadbd")) if path.is_file())
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen([str(program), "--no-defaults", *options], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            said = (self._folder / "log").read_text()[-2000:]
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._folder / "s")) == 0

    def kill(self) -> None:
        """What kill -9 leaves: nobody says goodbye."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def pause(self) -> None:
        """It does nothing any more, and closes nothing."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        deadline = time.monotonic() + PATIENCE_S
        while any(_state(task) not in "TZX" for task in tasks.iterdir()):
            assert time.monotonic() < deadline, "a thread goes on after SIGSTOP"

    def resume(self) -> None:
        """It goes on."""
        self.process.send_signal(signal.SIGCONT)

    def url(self, database: str, login: str = "root") -> str:
        """How to reach a database in it."""
        return f"mysql://{login}@127.0.0.1:{self.port}/{database}"

    def query(self, statement: str, database: str | None = None) -> Rows:
        """Runs a statement as the server's administrator; its rows."""
        (rows,) = self.queries(database, statement)
        return rows

    def queries(self, database: str | None, *statements: str) -> list[Rows]:
        """Runs statements one after the other as the server's administrator."""
        import pymysql

        with pymysql.connect(
            unix_socket=str(self._folder / "s"), user="root", database=database, autocommit=True, ssl_disabled=True,
            read_timeout=PATIENCE_S,
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            return [list(cursor.fetchall()) for statement in statements if cursor.execute(statement) is not None]

    def empty(self) -> str:
        """The URL of a new database without a table."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.query(f"CREATE DATABASE {name}")
        return self.url(name)

    def broken_in(self) -> str:
        """The URL of a new database at the newest schema, for a test that changes more than rows."""
        from modelyard.storage.sql.database import Database
        from modelyard.storage.sql.upgrade import upgrade_to_head

        url = self.empty()
        database = Database(url, PATIENCE_S)
        upgrade_to_head(database)
        database.close()
        return url

    def migrated(self) -> str:
        """The URL of a database as an upgrade leaves it. Another test gets it later, emptied: MariaDB can't copy one,
        and an upgrade takes half a second."""
        name = self._free.pop() if self._free else self.broken_in().rpartition("/")[2]
        if not self._first:
            tables = [row[0] for row in self.query("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'", name)]
            self._first = {table: self.query(f"SELECT * FROM `{table}`", name) for table in tables}
        self._lent.append(name)
        return self.url(name)

    def take_back(self) -> None:
        """Empties what `migrated` lent; what cannot be emptied within a second is given up."""
        import pymysql

        while self._lent:
            name = self._lent.pop()
            try:
                self._refill(name)
            except pymysql.err.Error:
                continue
            self._free.append(name)

    def _refill(self, name: str) -> None:
        import pymysql

        with pymysql.connect(
            unix_socket=str(self._folder / "s"), user="root", database=name, ssl_disabled=True, read_timeout=PATIENCE_S,
            init_command="SET SESSION foreign_key_checks = 0, innodb_lock_wait_timeout = 1, lock_wait_timeout = 1",
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            for table, rows in self._first.items():
                cursor.execute(f"DELETE FROM `{table}`")
                if rows:
                    cursor.executemany(f"INSERT INTO `{table}` VALUES ({', '.join(['%s'] * len(rows[0]))})", rows)
            connection.commit()


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _user() -> list[str]:
    """MariaDB refuses to run as root unless it is told whom to become."""
    return [f"--user={_UNPRIVILEGED}"] if os.getuid() == 0 else []


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """A server that runs with these options, and is gone afterwards."""
    found = shutil.which("mariadb-install-db")
    if found is None or not (shutil.which("mariadbd") or Path("/usr/sbin/mariadbd").is_file()):
        pytest.skip("MariaDB is not installed (apt-get install mariadb-server)")
    folder = Path(tempfile.mkdtemp(prefix="modelyard-maria-"))
    try:
        if os.getuid() == 0:
            user = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = Server(Path(found).parent, folder, options)
        server.start()
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
