"""Starting: two commands, one sentence for whatever is wrong, nothing secret shown twice."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from server import KEY_TEXT, RunningServer, command

Serve = Callable[..., RunningServer]
GIVEN = "0123456789abcdef0123456789abcdef-given-by-the-operator"


def refused(result: CompletedProcess[str], status: int, *words: str) -> None:
    """One sentence and at most one line of advice; no traceback."""
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) <= 2
    assert lines[0].startswith("error: ")
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_the_folder_is_private(serve: Serve, tmp_path: Path) -> None:
    """The data folder is 0700, also one that was open before, and no file in it is writable by others."""
    (tmp_path / "data").mkdir(mode=0o755)
    server = serve()
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    for path in server.data.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0, path


def test_first_key_is_shown_once(serve: Serve) -> None:
    """The first start prints an administrator's key that works; the second start prints none, and it still works."""
    first = serve()
    assert len(KEY_TEXT.findall(first.output)) == 1
    assert first.ask("GET", "/v1/keys").status == 200
    first.stop()
    second = serve()
    assert KEY_TEXT.findall(second.output) == []
    assert second.ask("GET", "/v1/keys", key=first.key).status == 200


def test_given_key_is_starred_everywhere(serve: Serve) -> None:
    """`auth.admin_key` works, is starred in the effective settings, and is in no log, argument list or environment
    of the other processes."""
    server = serve(settings={"auth.admin_key": GIVEN})
    assert server.ask("GET", "/v1/keys", key=GIVEN).status == 200
    assert GIVEN not in server.output
    assert "**********" in next(line for line in server.output.splitlines() if line.startswith("auth.admin_key"))
    others = server.worker_pids() + server.drain_pids()
    assert len(others) == 2
    for pid in others:
        for name in ("cmdline", "environ"):
            assert GIVEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    server.stop()
    for path in server.data.rglob("*"):
        assert not path.is_file() or GIVEN.encode() not in path.read_bytes()


def test_file_environment_flag(serve: Serve, tmp_path: Path) -> None:
    """A TOML file sets, the environment overrides it, a flag overrides both; all are shown at the start."""
    config = tmp_path / "modelyard.toml"
    config.write_text('[http]\nkeep_alive_s = 33\ndrain_delay_s = 9\nport = 1\n[limits]\ndefault_rate = "7/s"\n')
    server = serve(arguments=("--config", str(config)), settings={"http.drain_delay_s": "0.1"})
    shown = dict(line.split(None, 1) for line in server.output.splitlines() if line[:5] in ("http.", "limit"))
    assert float(shown["http.keep_alive_s"]) == 33
    assert float(shown["http.drain_delay_s"]) == 0.1
    assert int(shown["http.port"]) == 0
    assert shown["limits.default_rate"].strip() == "7/s"
    limited = server.create_key("limited")
    assert limited["rate"] == "7/s"


def test_machine_is_shown(serve: Serve) -> None:
    """Cores, cgroup quota and the threads of the numeric libraries are printed at the start."""
    output = serve().output
    assert f"cores {len(os.sched_getaffinity(0))}" in output
    for word in ("cgroup quota", "OpenMP", "ONNX Runtime"):
        assert word in output


def test_second_server_on_the_folder(serve: Serve) -> None:
    """A second server on the same folder is one sentence that names the first, exit code 5; the first serves on."""
    server = serve()
    refused(command("serve", "--data", server.data, "--port", "0"), 5, "data_folder_in_use", server.url)
    assert server.ask("GET", "/v1/keys").status == 200
    assert json.loads((server.data / "server.json").read_text())["url"] == server.url


def test_killed_server_leaves_the_folder_free(serve: Serve) -> None:
    """After kill -9 of the parent the next start on the folder works, once the workers are gone."""
    server = serve()
    server.process.kill()
    server.process.wait()
    assert serve().ask("GET", "/v2/health/live", key=None).status == 200


def test_port_in_use(tmp_path: Path) -> None:
    """A port that is taken is one sentence with the port, and the folder is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(command("serve", "--data", tmp_path / "data", "--port", port), 1, "port_in_use", port)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("http.port", "70000", ("http.port", "65535")),
        ("http.no_such", "1", ("http.no_such",)),
        ("journal.durability", "maybe", ("journal.durability", "process")),
        ("limits.default_rate", "fast", ("rate",)),
        ("auth.admin_key", "short", ("32",)),
        ("http.host", "no.such.host.invalid", ("no.such.host.invalid",)),
    ],
)
def test_wrong_setting(tmp_path: Path, setting: str, value: str, words: tuple[str, ...]) -> None:
    """A wrong setting is one sentence that names it, exit code 1 or 2, and nothing is started."""
    name = f"MODELYARD_{setting.replace('.', '__').upper()}"
    result = command("serve", "--data", tmp_path / "data", env={"MODELYARD_HTTP__PORT": "0", name: value})
    assert result.returncode in (1, 2)
    refused(result, result.returncode, *words)
    assert not (tmp_path / "data" / "server.json").exists()


@pytest.mark.parametrize("text", ["[http", "[http]\nport = 'x'\n", "[nothing]\na = 1\n"])
def test_wrong_file(tmp_path: Path, text: str) -> None:
    """A configuration file that is no TOML, or holds what no setting takes, is one sentence."""
    config = tmp_path / "modelyard.toml"
    config.write_text(text)
    refused(command("serve", "--data", tmp_path / "data", "--config", config), 2)


def test_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    """A refused administrator's key is not printed by the refusal."""
    result = command("serve", "--data", tmp_path / "data", env={"MODELYARD_AUTH__ADMIN_KEY": "hunter2 hunter2"})
    assert result.returncode != 0
    assert "hunter2" not in result.stdout + result.stderr


def test_unusable_folder(tmp_path: Path) -> None:
    """A data folder that is a file is one sentence."""
    (tmp_path / "data").write_text("in the way")
    refused(command("serve", "--data", tmp_path / "data", "--port", "0"), 1, "data_folder_unusable")
