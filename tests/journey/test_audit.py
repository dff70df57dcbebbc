"""The audit log of a real server: by HTTP, by command, over a crash, and by somebody without the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trained
from server import RunningServer, command, until

ROOT = Path(__file__).parent.parent.parent
Serve = Callable[..., RunningServer]


def listed(*options: str | Path) -> list[dict[str, Any]]:
    """The events by command, in the order of the chain."""
    done = command("audit", "list", "--limit", "5000", "--json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["events"]
    return found[::-1]


def test_the_story_of_a_server_is_on_record(serve: Serve, tmp_path: Path) -> None:
    """Start, key, publish, switch, revocation by command, refusals, stop, a start with other settings: each with who,
    from where and what; the log verifies from the server, from the folder, and by the script of the documentation."""
    server = serve()
    data: tuple[str | Path, ...] = ("--data", server.data)
    for version in ("1", "2"):
        assert server.publish("simple", trained.simple() if version == "1" else trained.divide(), version).status == 201
    made = server.create_key("acme")
    assert server.set_traffic("simple", v1=50, v2=50).status == 200
    assert command("keys", "revoke", made["id"], *data).returncode == 0
    assert server.ask("GET", "/v1/models", key="mdy_wrong").status == 401
    remote = ("--server", server.url, "--key", server.key)
    events = listed(*remote)
    head = tmp_path / "head.json"
    head.write_text(command("audit", "list", "--head", *remote).stdout)
    assert json.loads(command("audit", "verify", "--json", "--head", head, *remote).stdout)["sound"]
    server.stop()

    story = [(event["action"], event["subject"], event["actor"].partition(":")[0]) for event in events]
    host = os.uname().nodename
    local, client = "local", "client"
    assert story == [
        ("client:create", "client:administrator", local),
        ("key:create", f"key:{events[1]['subject'][4:]}", local),
        ("server:start", f"server:{host}", local),
        ("version:publish", "version:simple/1", client),
        ("version:publish", "version:simple/2", client),
        ("client:create", "client:acme", client),
        ("key:create", f"key:{made['id']}", client),
        ("traffic:set", "endpoint:simple", client),
        ("key:revoke", f"key:{made['id']}", local),
    ]
    by_http = [event for event in events if event["actor"] == "client:administrator"]
    assert {event["address"] for event in by_http} == {"127.0.0.1"}
    assert {event["key_id"] for event in by_http} == {server.key.split("_")[1]}
    assert len({event["request_id"] for event in by_http} - {""}) == 4

    serve(settings={"limits.default_rate": "5/m"}).stop()
    after = listed(*data)[len(events) :]
    assert [event["action"] for event in after] == [
        "request:refuse", "server:stop", "server:start", "settings:change", "server:stop",
    ]  # fmt: skip
    assert after[0]["after"] == {"address": "127.0.0.1", "status": 401, "code": "key_malformed", "count": 1}
    assert after[3]["after"]["limits.default_rate"] == "5/m"
    assert "http.port" not in after[3]["after"]
    text = json.dumps(events + after)
    assert not any(secret in text for secret in server.secrets)

    assert command("audit", "verify", "--head", head, *data).returncode == 0
    log = tmp_path / "audit.jsonl"
    assert command("audit", "export", "--out", log, *data).returncode == 0
    assert_the_script_agrees(log, head)


def assert_the_script_agrees(log: Path, head: Path) -> None:
    """The documented script finds the export sound, and each of four tricks on it."""

    def checked(text: str, *more: Path) -> int:
        (log.parent / "tried.jsonl").write_text(text)
        script = [sys.executable, str(ROOT / "examples/verify_audit.py"), str(log.parent / "tried.jsonl")]
        return subprocess.run([*script, *map(str, more)], capture_output=True, timeout=30, check=False).returncode

    text = log.read_text()
    lines = text.splitlines(keepends=True)
    assert (checked(text), checked(text, head)) == (0, 0)
    assert checked(text.replace("version:simple/1", "version:simple/7")) == 1
    assert checked("".join(lines[1:])) == 1
    assert checked("".join([lines[1], lines[0], *lines[2:]])) == 1
    assert checked("".join(lines[:5]), head) == 1


def test_a_crash_leaves_change_and_event_or_neither(serve: Serve) -> None:
    """All processes killed in the middle of changes: the log verifies, every key that was acknowledged has its event,
    and every key that exists has exactly one (I8)."""
    server = serve(workers=2)
    acknowledged: list[str] = []
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            try:
                reply = server.ask("POST", "/v1/keys", {"client": f"c{number}"}, fresh=True)
            except Exception:  # the server is gone
                return
            if reply.status == 201:
                acknowledged.append(reply.json["id"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 20, 60, "twenty keys")
    pids = [server.process.pid, *server.worker_pids(), *server.drain_pids()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join(60)
    server.process.wait(30)
    assert command("audit", "verify", "--data", server.data).returncode == 0
    recorded = [event["subject"][4:] for event in listed("--data", server.data, "--action", "key:create")]
    keys = json.loads(command("keys", "list", "--data", server.data, "--json").stdout)["keys"]
    assert sorted(recorded) == sorted(key["id"] for key in keys)
    assert set(acknowledged) <= set(recorded)
