"""A client's own bounds on a real server: over its workers, over its death, and at its door."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import trained
from server import RunningServer, until

PATH = "/v2/models/cancer/infer"
BODY = json.dumps(trained.infer_body(X=trained.cancer().rows[:1])).encode()


def status(connection: http.client.HTTPConnection, key: str) -> int:
    connection.request("POST", PATH, BODY, {"x-api-key": key})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_quota_is_one_for_all_workers(server: RunningServer) -> None:
    """10 predictions of a day, whichever worker answers; then 429 until midnight UTC; `me` tells what is left and
    costs nothing of it; a larger quota counts within a second."""
    made = server.create_key("quota-client", quota="10/day")
    key = made["key"]
    with server.every_worker() as connections:
        assert server.ask("GET", "/v1/me", key=key).json["left"]["quota"] == 10
        seen = [status(connection, key) for _ in range(10) for connection in connections.values()]
        assert (seen.count(200), seen.count(429)) == (10, 10)
        reply = server.ask("POST", PATH, BODY, key=key)
        assert (reply.status, reply.json["code"]) == (429, "quota_exhausted")
        left_s = 86_400 - time.time() % 86_400
        assert left_s - 5 < int(reply.headers["retry-after"]) <= 86_400
        assert (reply.headers["ratelimit-limit"], reply.headers["ratelimit-remaining"]) == ("10", "0")
        said = server.ask("GET", "/v1/me", key=key).json
        assert (said["limits"]["quota"], said["left"]["quota"]) == ("10/day", 0)
        assert server.ask("PATCH", f"/v1/keys/{made['id']}", {"quota": "12/day"}).status == 200
        until(lambda: server.ask("GET", "/v1/me", key=key).json["left"]["quota"] == 2, 1.0, "the larger quota")
        seen = [status(connection, key) for _ in range(4) for connection in connections.values()]
        assert seen.count(200) == 2


def test_wrong_keys_are_told_to_wait_and_a_good_one_passes(server: RunningServer) -> None:
    """After 20 wrong keys from here: too_many_attempts with Retry-After; a valid key passes all the same, on predict
    and on management routes."""
    good = server.create_key("good")["key"]
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    codes = {server.ask("POST", PATH, BODY, key=wrong).json["code"] for _ in range(80)}
    assert "too_many_attempts" in codes
    reply = until(lambda: _limited(server, wrong), what="the limiter")
    assert int(reply.headers["retry-after"]) >= 1
    for _ in range(10):
        assert server.ask("POST", PATH, BODY, key=good).status == 200
    assert server.ask("GET", "/v1/keys").status == 200


def _limited(server: RunningServer, wrong: str):  # type: ignore[no-untyped-def]
    reply = server.ask("POST", PATH, BODY, key=wrong)
    return reply if reply.status == 401 and reply.json["code"] == "too_many_attempts" else None


def test_last_use_comes_to_the_list(server: RunningServer) -> None:
    """A key that predicted is listed with the minute of its use, once the background wrote it."""
    made = server.create_key("used")
    assert server.ask("POST", PATH, BODY, key=made["key"]).status == 200
    until(lambda: server.ask("GET", f"/v1/keys/{made['id']}").json["last_used_at"], 60.0, "the last use")
    found = server.ask("GET", f"/v1/keys/{made['id']}").json["last_used_at"]
    assert found.endswith(":00Z")


def test_kill_9_of_all_and_a_stop_keep_the_quota(serve: Callable[..., RunningServer]) -> None:
    """kill -9 of parent and workers a while after the last prediction, and an orderly stop right after one: the next
    start goes on where the count was."""
    admin = "a" * 40
    first = serve(workers=2, settings={"auth.admin_key": admin})
    assert first.publish("cancer", trained.cancer().content, "1").status == 201
    key = first.create_key("acme", quota="100/day")["key"]
    assert {first.ask("POST", PATH, BODY, key=key, fresh=True).status for _ in range(30)} == {200}
    kept = first.data / "modelyard.db"
    until(lambda: _kept(kept) == 30, 20.0, "the write of the count")
    pids = [*first.worker_pids(), *first.drain_pids(), first.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    first.end()
    second = serve(workers=2, settings={"auth.admin_key": admin})
    until(lambda: second.ask("GET", "/v2/health/ready", key=None).status == 200, 30.0, "ready")
    assert second.ask("GET", "/v1/me", key=key).json["left"]["quota"] == 70
    assert second.ask("POST", PATH, BODY, key=key).status == 200
    second.stop()
    assert _kept(kept) == 31


def _kept(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT coalesce(max(used), 0) FROM quota_uses").fetchone()[0])
