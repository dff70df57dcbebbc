"""A client's own bounds on a real server of two workers: daily quota, guesses, what is left (SEC-3, API-5)."""

from __future__ import annotations

import json
from collections.abc import Callable

import trained
from server import RunningServer, command, until

PATH = "/v2/models/cancer/infer"
BODY = json.dumps(trained.infer_body(X=trained.cancer().rows[:1])).encode()


def test_a_daily_quota_is_exact_over_the_workers(server: RunningServer) -> None:
    """Ten predictions a day pass on both workers together, the next are 429 with the time to midnight; what is left
    is told, and a request that is refused, or no prediction, costs nothing of it."""
    key = server.create_key("ten-a-day", rate="100000/s", quota="10/day")["key"]
    answers = []
    with server.every_worker() as connections:
        for turn in range(24):
            connection = list(connections.values())[turn % len(connections)]
            connection.request("POST", PATH, BODY, {"x-api-key": key})
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read()), dict(answer.getheaders())))
    passed = [body for status, body, _ in answers if status == 200]
    refused = [(body, headers) for status, body, headers in answers if status == 429]
    assert (len(passed), len(refused)) == (10, 14)
    body, headers = refused[0]
    assert body["code"] == "quota_exhausted"
    assert 1 <= int(headers["Retry-After"] if "Retry-After" in headers else headers["retry-after"]) <= 86_400
    assert server.ask("GET", "/v1/me", key=key).json["left"]["quota"] == 0


def test_a_quota_survives_the_server(serve: Callable[..., RunningServer]) -> None:
    """What was used up today is used up after a stop and a start."""
    first = serve(workers=1)
    content = trained.cancer(1.0).content
    assert first.publish("cancer", content, "1").status == 201
    key = first.create_key("three-a-day", quota="3/day")["key"]
    assert [first.ask("POST", PATH, BODY, key=key).status for _ in range(2)] == [200, 200]
    first.stop()
    second = serve(workers=1)
    until(lambda: second.ask("GET", "/v2/health/ready").status == 200, 30.0, "ready")
    assert [second.ask("POST", PATH, BODY, key=key).status for _ in range(2)] == [200, 429]


def test_guesses_are_slowed_and_counted_and_hurt_nobody(serve: Callable[..., RunningServer]) -> None:
    """After twenty wrong keys the address hears only that there were too many; a valid key passes from it, and the
    audit log tells of all of them in one event a minute, not one each (P7)."""
    server = serve(workers=1)
    assert server.publish("cancer", trained.cancer(1.0).content, "1").status == 201
    good = server.create_key("good")["key"]
    wrong = good[:-8] + "AAAAAAAA"
    codes = [server.ask("POST", PATH, BODY, key=wrong).json["code"] for _ in range(30)]
    assert set(codes[20:]) == {"too_many_attempts"}
    assert "too_many_attempts" not in codes[:19]
    assert server.ask("POST", PATH, BODY, key=good).status == 200
    server.stop()
    listed = json.loads(command("audit", "list", "--data", server.data, "--json").stdout)
    told = [event for event in listed["events"] if "too_many_attempts" in json.dumps(event)]
    assert len(told) == 1, sorted({event["action"] for event in listed["events"]})
    assert '"count": 10' in json.dumps(told[0]) or '"count": 9' in json.dumps(told[0])
