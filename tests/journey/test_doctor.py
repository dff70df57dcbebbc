"""`modelyard doctor`: what it finds, what it advises, what it says to programs; it changes nothing."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from server import RunningServer, command

from modelyard.cli.doctor import examine, machine
from modelyard.cli.doctor.findings import Finding, State, gather
from modelyard.core.settings import HttpSettings, Settings
from modelyard.http.edge.certificate import TlsFiles, make_self_signed, utc_now
from modelyard.storage.sql.open import open_stores


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder after a start and a stop."""
    open_stores(Settings(), tmp_path / "data").close()
    (tmp_path / "data").chmod(0o700)
    (tmp_path / "data" / "spool").mkdir(mode=0o700)
    return tmp_path / "data"


def look(data: Path, config: Path | None = None, **flags: Any) -> dict[str, Finding]:
    """The findings by name."""
    given: Mapping[str, Any] = {"data": data, "http.port": 0, **flags}
    findings, _ = examine(config, dict(given))
    return {finding.name: finding for finding in findings}


def test_a_good_folder(data: Path) -> None:
    """On a folder as a start leaves it nothing is wrong, and everything that the help names was looked at."""
    findings = look(data)
    wrong = [finding for finding in findings.values() if finding.state == State.PROBLEM]
    assert wrong == []
    looked = {"system", "packages", "memfd", "record locks", "fallocate", "SCHED_IDLE", "cores", "threads", "memory"}
    looked |= {"open files", "folder", "files", "clock", "disk", "spool", "database", "port", "TLS", "others"}
    assert looked <= findings.keys()


def test_the_jails_protections_are_tried(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its line: all hold here. One that does not is a problem with its remedy where a format is allowed, and
    only said where none is."""
    from modelyard.runtimes.jail import process

    names = {"network", "processes", "writes", "files", "memory", "cpu", "environment", "privileges", "tracing",
             "signals", "descriptors", "orphans"}  # fmt: skip
    jail = {name: finding for name, finding in look(data).items() if name.startswith("jail: ")}
    assert jail.keys() == {f"jail: {name}" for name in names}
    assert {finding.said for finding in jail.values()} == {"holds"}
    loose = (
        "import modelyard.runtimes.jail.inside.landlock as landlock\n"
        "landlock.read_only = lambda paths: None\n"
        "from modelyard.runtimes.jail.inside.__main__ import main\nmain()"
    )
    monkeypatch.setattr(process, "command", lambda orders: [sys.executable, "-P", "-c", loose, orders])
    told = look(data)["jail: files"]
    assert (told.state, told.remedy) == (State.OK, "")
    assert "would not hold: a list of the folder" in told.said
    told = look(data, **{"models.unsafe_formats": ["python"]})["jail: files"]
    assert told.state == State.PROBLEM
    assert "Landlock" in told.remedy


def test_nothing_is_changed(data: Path, tmp_path: Path) -> None:
    """Not a byte of the folder, not a time of a file, not a folder that was not there."""

    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in data.rglob("*")}

    before = state()
    look(data)
    look(tmp_path / "absent")
    assert state() == before
    assert not (tmp_path / "absent").exists()


def test_every_finding_of_a_bad_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open permissions, a file for all, a full disk, a full spool, a file from the future, a database of a newer
    version: each named, with what to do."""
    (data / "spool" / "1-0.spool").write_bytes(b"x" * 60_000)
    (data / "spool" / "1-0.spool").chmod(0o666)
    data.chmod(0o755)
    os.utime(data / "spool" / "1-0.spool", (time.time() + 9000,) * 2)
    with closing(sqlite3.connect(data / "modelyard.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    monkeypatch.setenv("MODELYARD_JOURNAL__MAX_SPOOL_BYTES", str(65_536))
    findings = look(data)
    expected = {
        "folder": ("warning", "chmod 700"),
        "files": ("problem", "chmod -R go-w"),
        "spool": ("warning", "drain"),
        "past": ("warning", "clock"),
        "database": ("problem", "--upgrade"),
    }
    for name, (state, remedy) in expected.items():
        assert findings[name].state == state, findings[name]
        assert remedy in findings[name].remedy
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    assert look(data)["disk"].state == State.PROBLEM
    (data / "modelyard.db").write_bytes(b"no database" * 100)
    assert look(data)["database"].state == State.PROBLEM
    (data.parent / "file").write_text("")
    assert look(data.parent / "file")["folder"].state == State.PROBLEM


def test_port_and_tls(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken, an open address without TLS, a certificate that ends soon, one that has ended, and a key
    that others may read."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert look(data, **{"http.port": taken.getsockname()[1]})["port"].state == State.PROBLEM
    assert look(data, **{"http.host": "0.0.0.0"})["TLS"].state == State.WARNING
    files = TlsFiles(tmp_path / "c.pem", tmp_path / "k.pem")
    monkeypatch.setenv("MODELYARD_HTTP__TLS_CERT", str(files.certificate))
    monkeypatch.setenv("MODELYARD_HTTP__TLS_KEY", str(files.key))
    for days_ago, name, state in ((0, "TLS", "ok"), (80, "TLS", "warning"), (91, "tls_certificate_expired", "problem")):
        make_self_signed(files, ("localhost",), utc_now() - timedelta(days=days_ago))
        assert look(data)[name].state == state
    make_self_signed(files, ("localhost",), utc_now())
    files.key.chmod(0o644)
    assert look(data)["TLS key"].state == State.WARNING
    files.key.unlink()
    assert look(data)["tls_file_unreadable"].state == State.PROBLEM


def test_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """More workers than cores, more threads than cores, too few descriptors, bodies beyond the memory, a package that
    is missing or too old, a kernel without a feature."""
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    many = Settings(workers=256, http=HttpSettings(max_inflight_bytes=1 << 40, max_connections=10**9))
    found = {f.name: f for check in (machine.cores, machine.memory, machine.descriptors) for f in check(many)}
    assert {f.state for f in found.values()} == {State.WARNING}
    assert all(f.remedy for f in found.values())
    monkeypatch.setattr(machine.metadata, "requires", lambda name: ["numpy>=999", "nothing-like-it>=1", "rich>=1"])
    packages = next(machine.versions())
    assert packages.state == State.PROBLEM
    assert "numpy>=999, nothing-like-it>=1" in packages.said
    monkeypatch.delattr(os, "memfd_create")
    assert next(machine.kernel(Path("/"))).state == State.PROBLEM


def test_a_broken_check_stops_no_other() -> None:
    """What cannot be looked at is a finding, and the rest is looked at."""

    def breaks() -> list[Finding]:
        raise PermissionError("not yours")

    first, second = gather("x", [breaks, lambda: [Finding("x", "y", State.OK, "")]])
    assert (first.state, first.name, second.name) == (State.WARNING, "breaks", "y")
    assert "not yours" in first.said


def test_settings_with_their_origins(data: Path, tmp_path: Path) -> None:
    """`--json` gives every setting with its origin, secrets starred; a wrong one is a problem, exit code 1."""
    config = tmp_path / "modelyard.toml"
    config.write_text("[http]\nkeep_alive_s = 33\nport = 1\n")
    env = {"MODELYARD_HTTP__DRAIN_DELAY_S": "1", "MODELYARD_AUTH__ADMIN_KEY": "hunter2-hunter2-hunter2-hunter2-hunter2"}
    done = command("doctor", "--data", data, "--config", config, "--port", "0", "--json", env=env)
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout)
    where = {each["name"]: each["origin"] for each in said["settings"]}
    assert where["http.keep_alive_s"] == str(config)
    assert where["http.drain_delay_s"] == "MODELYARD_HTTP__DRAIN_DELAY_S"
    assert (where["http.port"], where["http.host"]) == ("command line", "default")
    assert said["ok"] is True
    assert "hunter2" not in done.stdout
    config.write_text("[http]\nport = 'x'\n")
    wrong = command("doctor", "--data", data, "--config", config)
    assert wrong.returncode == 1
    assert "http.port" in wrong.stdout
    assert "1 problem," in wrong.stdout
    assert "Traceback" not in wrong.stdout + wrong.stderr


def test_beside_a_running_server(serve: Callable[..., RunningServer]) -> None:
    """The port that this folder's own server has is fine, and the server is named."""
    server = serve()
    done = command("doctor", "--data", server.data, "--port", str(server.port))
    assert done.returncode == 0, done.stdout
    assert f"process {server.process.pid} at {server.url}" in done.stdout
    assert "own server's" in done.stdout
