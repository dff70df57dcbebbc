"""A throw-away PostgreSQL on a free port: one server for a session, one database for a test."""

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

import pytest

PATIENCE_S = 60
_UNPRIVILEGED = "postgres"
_LOGINS = """\
local all all trust
local replication all trust
host all guarded 127.0.0.1/32 scram-sha-256
host all unwanted 127.0.0.1/32 reject
hostssl all signed 127.0.0.1/32 password
host all signed 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
"""


class Server:
    """A running server, in a folder that its own user can read."""

    def __init__(
        self, binaries: Path, folder: Path, primary: Server | None = None, options: Sequence[str] = ()
    ) -> None:
        """Empty, or a standby that follows `primary`; `options` are settings of the server's, as `name=value`."""
        self._binaries = binaries
        self._data = folder / "data"
        self._log = folder / "log"
        self._folder = folder
        self._template: str | None = None
        self._tls = "off"
        self._options = "".join(f" -c {option}" for option in options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        if primary is None:
            made = ["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"]
            self._run("initdb", "-D", self._data, *made)
            (self._data / "pg_hba.conf").write_text(_LOGINS)
        else:
            source = ["-h", primary._folder, "-p", primary.port, "-U", "postgres"]
            self._run("pg_basebackup", "-D", self._data, *source, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def certify(self, certificate: bytes, key: bytes) -> None:
        """From its next start on it speaks TLS, and shows this certificate."""
        for name, content in (("server.crt", certificate), ("server.key", key)):
            path = self._data / name
            path.write_bytes(content)
            path.chmod(0o600)
            if os.getuid() == 0:
                shutil.chown(path, _UNPRIVILEGED, _UNPRIVILEGED)
        self._tls = "on"

    def start(self) -> None:
        """Starts it; returns once it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self._folder} -c fsync=off -c ssl={self._tls}{self._options}"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", self._log, "-o", options, "start")

    def stop(self) -> None:
        """Stops it at once, if it runs."""
        if "server is running" in self._run("pg_ctl", "-D", self._data, "status", may_fail=True):
            self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def kill(self) -> None:
        """What kill -9 of all its processes leaves: nobody says goodbye."""
        parent, *children = self._stopped()
        for pid in (parent, *children):
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        while any(_alive(pid) for pid in (parent, *children)):
            assert time.monotonic() < deadline, "the server outlives SIGKILL"
            time.sleep(0.01)
        # Where nobody reaps the dead, the number in these would pass for a running server's.
        (self._data / "postmaster.pid").unlink()
        (self._folder / f".s.PGSQL.{self.port}.lock").unlink()

    def freeze(self) -> None:
        """Stops all its processes in the middle of what they do (SIGSTOP); its sockets stay open."""
        for pid in self._stopped():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets them go on."""
        for pid in reversed(self._stopped()):
            os.kill(pid, signal.SIGCONT)

    def promote(self) -> None:
        """A standby takes writes from now on."""
        self._run("pg_ctl", "-D", self._data, "-w", "promote")

    @property
    def pid(self) -> int:
        """Its first process, the parent of the others."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def _stopped(self) -> list[int]:
        """Its processes, the parent first, which is stopped: it forks nobody between the look and what follows."""
        parent = self.pid
        os.kill(parent, signal.SIGSTOP)
        return [parent, *map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())]

    def url(self, database: str, login: str = "postgres") -> str:
        """How to reach a database in it."""
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def query(self, statement: str, database: str = "postgres") -> str:
        """Runs a statement as the server's administrator; its first value."""
        address = ["-h", self._folder, "-p", self.port, "-U", "postgres", "-d", database]
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *address, "-c", statement).strip()

    def empty(self) -> str:
        """The URL of a new database without a table."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.query(f"CREATE DATABASE {name}")
        return self.url(name)

    def migrated(self) -> str:
        """The URL of a new database at the newest schema, a copy of one that was upgraded once. Its log has no days:
        each would be a dozen files in every copy."""
        from modelyard.storage.sql import dialects
        from modelyard.storage.sql.database import Database
        from modelyard.storage.sql.upgrade import upgrade_to_head

        if self._template is None:
            url = self.empty()
            database = Database(url, PATIENCE_S)
            upgrade_to_head(database)
            with database.write() as connection:
                for day in dialects.days(connection):
                    dialects.drop_day(connection, day)
            database.close()
            self._template = url.rpartition("/")[2]
        name = f"t{uuid.uuid4().hex[:12]}"
        self.query(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url(name)

    def _run(self, program: str, *arguments: object, may_fail: bool = False) -> str:
        command = [*_as_somebody(), str(self._binaries / program), *map(str, arguments)]
        # Not a pipe: a server that pg_ctl leaves behind would keep it open.
        with tempfile.TemporaryFile("w+") as said:
            ran = subprocess.run(command, stdout=said, stderr=said, timeout=PATIENCE_S, cwd=self._folder, check=False)
            said.seek(0)
            text = said.read()
        log = self._log.read_text()[-2000:] if self._log.exists() else ""
        assert may_fail or ran.returncode == 0, f"{program}: {text}{log}"
        return text


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _as_somebody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", f"--reuid={_UNPRIVILEGED}", f"--regid={_UNPRIVILEGED}", "--clear-groups"]


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    needed = ("initdb", "pg_basebackup", "pg_ctl", "postgres", "psql")
    return next((place for place in places if all((place / name).is_file() for name in needed)), None)


@contextmanager
def serving(primary: Server | None = None, options: Sequence[str] = ()) -> Iterator[Server]:
    """A server that runs with these settings, and is gone afterwards; a standby of `primary`, if one is named."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="modelyard-pg-"))
    try:
        if os.getuid() == 0:
            user = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = Server(binaries, folder, primary, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
