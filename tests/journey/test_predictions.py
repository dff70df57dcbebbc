"""The prediction log: what was answered is in it, once, and can be found, counted, shown and taken away."""

from __future__ import annotations

import csv
import io
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import trained
from server import RunningServer, command, until

ROWS = trained.cancer().rows


@pytest.fixture(scope="module")
def sent(server: RunningServer) -> dict[str, list[str]]:
    """Ids of 30 predictions of one client: 20 good ones over the Open Inference Protocol to two versions, 5 of the
    predictions route, 5 refused ones."""
    key = server.create_key("logged", rate="1000000/s")["key"]
    ids: dict[str, list[str]] = {"1": [], "2": [], "items": [], "bad": []}
    for number in range(10):
        for version in ("1", "2"):
            body = trained.infer_body(X=ROWS[number : number + 1])
            reply = server.ask("POST", f"/v2/models/cancer/versions/{version}/infer", body, key=key)
            ids[version].append(reply.headers["x-prediction-id"])
    for number in range(5):
        items = {"items": [{"X": ROWS[number].tolist()}, {"X": "no number"}]}
        reply = server.ask("POST", "/v1/models/cancer/predictions", items, key=key)
        assert reply.status == 200, reply.body
        assert ["error" in result for result in reply.json["results"]] == [False, True], reply.body
        ids["items"].append(reply.headers["x-prediction-id"])
        bad = server.ask("POST", "/v2/models/cancer/infer", {"inputs": []}, key=key)
        assert bad.status == 400
        ids["bad"].append(bad.headers["x-prediction-id"])
    until(lambda: server.count(client="logged") == 30, what="the drain")
    return ids


def of(server: RunningServer) -> tuple[str, ...]:
    return ("--server", server.url, "--key", server.key)


def test_each_once(server: RunningServer, sent: dict[str, list[str]]) -> None:
    """Every id that was answered is in the log exactly once, refusals of routed requests included, and none more."""
    page = server.ask("GET", "/v1/predictions?client=logged&limit=100").json["predictions"]
    assert sorted(record["id"] for record in page) == sorted(chain(*sent.values()))


def test_filters_and_pages(server: RunningServer, sent: dict[str, list[str]]) -> None:
    """Filters by client, model, version, status and time; pages by cursor, newest first, nothing twice."""
    assert server.count(client="logged", version="2", status="200") == 10
    assert server.count(client="logged", status="4xx") == 5
    assert server.count(client="logged", since="1h") == 30
    assert server.count(client="logged", until="1h") == 0
    assert server.count(client="logged", model="digits") == 0
    seen: list[dict[str, Any]] = []
    cursor = ""
    while True:
        reply = server.ask("GET", f"/v1/predictions?client=logged&limit=7{cursor}").json
        seen += reply["predictions"]
        if reply["next_cursor"] is None:
            break
        cursor = f"&cursor={reply['next_cursor']}"
    ids = [record["id"] for record in seen]
    assert len(ids) == len(set(ids)) == 30
    assert ids == sorted(ids, reverse=True)


def test_one_record_says_all(server: RunningServer, sent: dict[str, list[str]]) -> None:
    """A record holds who, when, which version, what came in and what went out."""
    record = server.ask("GET", f"/v1/predictions/{sent['2'][3]}").json
    assert (record["client"], record["model"], record["version"], record["status"]) == ("logged", "cancer", "2", 200)
    text = json.dumps(record)
    assert str(ROWS[3, 0].item())[:5] in text
    assert str(round(float(trained.cancer(0.01).probabilities[3, 0]), 4)) in text
    shown = command("predictions", "show", sent["2"][3], *of(server), "--json")
    assert json.loads(shown.stdout) == record
    missing = command("predictions", "show", "no-such-id", *of(server))
    assert missing.returncode == 3


def test_commands_agree(server: RunningServer, sent: dict[str, list[str]]) -> None:
    """`predictions count` and `list` give the same on the folder and on the server."""
    for where in (of(server), ("--data", str(server.data))):
        counted = command("predictions", "count", "--client", "logged", *where, "--json")
        assert json.loads(counted.stdout) == {"count": 30}
        listed = command("predictions", "list", "--client", "logged", "--limit", "4", *where, "--json")
        assert len(json.loads(listed.stdout)["predictions"]) == 4


def test_export(server: RunningServer, sent: dict[str, list[str]], tmp_path: Path) -> None:
    """JSON Lines and CSV hold every record once, each with its id, by command and over HTTP."""
    everything = sorted(chain(*sent.values()))
    out = tmp_path / "log.jsonl"
    done = command("predictions", "export", "--client", "logged", "--format", "jsonl", "--out", out, *of(server))
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(line)["id"] for line in out.read_text().splitlines()) == everything
    reply = server.ask("GET", "/v1/predictions/export?client=logged&format=csv")
    assert reply.headers["content-type"].startswith("text/csv")
    assert sorted(row["id"] for row in csv.DictReader(io.StringIO(reply.body.decode()))) == everything


def test_unlogged(server: RunningServer, sent: dict[str, list[str]]) -> None:
    """401, 403, 429 and 404 of an unknown model are answered without a prediction id: they are no records."""
    body = trained.infer_body(X=ROWS[:1])
    other = server.create_key("unlogged", models=["digits"])["key"]
    for path, key in (("cancer", None), ("cancer", "mdy_wrong"), ("cancer", other)):
        reply = server.ask("POST", f"/v2/models/{path}/infer", body, key=key)
        assert reply.status in (401, 403)
        assert "x-prediction-id" not in reply.headers
    unknown = server.ask("POST", "/v2/models/digits/versions/77/infer", body, key=other)
    assert (unknown.status, unknown.json["code"]) == (404, "version_not_found")
    assert "x-prediction-id" not in unknown.headers


def test_request_ids(server: RunningServer, client_key: str) -> None:
    """A good `x-request-id` comes back and finds its record; a bad one is replaced; every answer has one."""
    body = trained.infer_body(X=ROWS[:1])
    good = server.ask("POST", "/v2/models/cancer/infer", body, key=client_key, headers={"x-request-id": "mine-1:a.b"})
    assert good.headers["x-request-id"] == "mine-1:a.b"
    assert good.headers["x-request-id"] != good.headers["x-prediction-id"]
    bad = server.ask("POST", "/v2/models/cancer/infer", body, key=client_key, headers={"x-request-id": "not good!"})
    assert bad.headers["x-request-id"] not in ("", "not good!")
    for path in ("/v2/health/live", "/v1/keys", "/nowhere"):
        assert server.ask("GET", path).headers["x-request-id"]


def test_command_predicts(server: RunningServer, client_key: str, tmp_path: Path) -> None:
    """`modelyard predict` sends JSON, CSV and NPY files and prints what the model says."""
    import numpy as np

    expected = trained.cancer(1.0).probabilities[:4].argmax(1)
    (tmp_path / "rows.json").write_text(json.dumps(trained.infer_body(X=ROWS[:4])))
    np.save(tmp_path / "rows.npy", ROWS[:4])
    for name in ("rows.json", "rows.npy"):
        done = command("predict", "cancer", tmp_path / name, "--server", server.url, "--key", client_key, "--json")
        assert done.returncode == 0, done.stderr
        labels = next(o["data"] for o in json.loads(done.stdout)["outputs"] if o["name"] == "label")
        assert labels == expected.tolist()
