"""What came true: given by the client, before or after the record is stored, corrected, filtered, exported; and what a
redaction policy keeps out of every file."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import trained
from onnx import TensorProto, helper
from server import RunningServer, command, until

ROWS = trained.cancer().rows


@pytest.fixture(scope="module")
def labelled(server: RunningServer) -> dict[str, Any]:
    """One client's key and the ids of 6 requests of 3 rows, two with a subject."""
    key = server.create_key("labels", rate="1000000/s")["key"]
    ids: list[str] = []
    for number in range(6):
        body = trained.infer_body(X=ROWS[number : number + 3])
        if number < 2:
            body["parameters"] = {"subject": f"patient {number}"}
        reply = server.ask("POST", "/v2/models/cancer/infer", body, key=key)
        assert reply.status == 200, reply.body
        ids.append(reply.headers["x-prediction-id"])
    return {"key": key, "ids": ids}


def signs() -> bytes:
    """The signs of two numbers: an answer that says nothing about a value."""
    rows = [trained._value(name, TensorProto.FLOAT, "rows", 2) for name in ("x", "y")]
    return trained._model([helper.make_node("Sign", ["x"], ["y"])], rows[:1], rows[1:])


def of(server: RunningServer) -> tuple[str, ...]:
    return ("--server", server.url, "--key", server.key)


def test_a_client_says_what_came_true(server: RunningServer, labelled: dict[str, Any]) -> None:
    """201 or 202 at first, 200 for the same again, a revision for another value; strangers learn nothing."""
    key, one = labelled["key"], labelled["ids"][0]
    path = f"/v1/predictions/{one}/outcome"
    first = server.ask("POST", path, {"value": 1, "item": 2, "at": "2026-01-31T12:00:00Z"}, key=key)
    assert first.status in (201, 202), first.body
    assert first.json["id"] == f"{one}/2"
    until(lambda: server.count(client="labels") == 6, what="the drain")
    assert server.ask("POST", path, {"value": 1.0, "item": 2}, key=key).status == 200
    corrected = server.ask("POST", path, {"value": 0, "item": 2}, key=key)
    assert (corrected.status, corrected.json["revision"]) == (201, 2)
    said = [(o["value"], o["revision"]) for o in server.ask("GET", f"/v1/predictions/{one}/outcomes").json["outcomes"]]
    assert said == [(1, 1), (0, 2)]
    stranger = server.create_key("stranger", rate="1000000/s")["key"]
    made_up = one[:-10] + "ffffffffff"
    for who, where in ((stranger, one), (key, made_up), (server.key, made_up), (key, "no-such-id")):
        refused = server.ask("POST", f"/v1/predictions/{where}/outcome", {"value": 1}, key=who)
        assert (refused.status, refused.json["code"]) == (404, "prediction_not_found")
    beyond = server.ask("POST", path, {"value": 1, "item": 3}, key=key)
    assert (beyond.status, beyond.json["detail"]["field"]) == (400, "item")
    assert server.ask("POST", path, {"value": 0, "item": 2}, key=server.key).status == 200


def test_many_at_once(server: RunningServer, labelled: dict[str, Any], tmp_path: Path) -> None:
    """Each line is stored or refused on its own; the command line sends a file."""
    key, ids = labelled["key"], labelled["ids"]
    until(lambda: server.count(client="labels") == 6, what="the drain")
    lines = [
        json.dumps({"id": f"{ids[1]}/0", "value": 1}), "", json.dumps({"id": ids[1], "item": 1, "value": "?"}),
        "{", json.dumps({"id": "nobody", "value": 1}), json.dumps({"id": ids[1], "valu": 1}), "7",
    ]  # fmt: skip
    headers = {"content-type": "application/x-ndjson"}
    reply = server.ask("POST", "/v1/outcomes", "\n".join(lines).encode(), key=key, headers=headers)
    assert reply.status == 200, reply.body
    codes = [None if one["error"] is None else one["error"]["code"] for one in reply.json["results"]]
    assert codes == [None, None, "json_invalid", "prediction_not_found", "field_unknown", "field_type"]
    assert (reply.json["stored"], reply.json["refused"], reply.json["waiting"]) == (2, 4, 0)
    array = server.ask("POST", "/v1/outcomes", [{"id": ids[2], "value": 1, "at": 1_700_000_000}], key=key)
    assert array.json["results"][0]["outcome"]["at"] == "2023-11-14T22:13:20.000000Z"
    (tmp_path / "labels.jsonl").write_text(json.dumps({"id": f"{ids[3]}/1", "value": 0}) + "\n")
    done = command("predictions", "outcomes", tmp_path / "labels.jsonl", *of(server), "--json")
    assert (done.returncode, json.loads(done.stdout)["stored"]) == (0, 1), done.stderr
    one = command("predictions", "outcome", ids[4], "maybe", "--item", "1", "--at", "2h", *of(server), "--json")
    assert (one.returncode, json.loads(one.stdout)["value"]) == (0, "maybe"), one.stderr


def test_filters_items_and_exports_agree(server: RunningServer, labelled: dict[str, Any], tmp_path: Path) -> None:
    """Subject and outcome narrow lists, counts and exports; items carry their columns; Parquet says what JSON says."""
    subject = server.ask("GET", "/v1/predictions?subject=patient+1").json["predictions"]
    assert [record["id"] for record in subject] == [labelled["ids"][1]]
    assert subject[0]["subject"] == "patient 1"
    assert server.count(client="labels", items="true") == 18
    given = server.count(client="labels", items="true", outcome="has")
    assert given + server.count(client="labels", items="true", outcome="none") == 18
    listed = server.ask("GET", "/v1/predictions?client=labels&items=true&outcome=has&limit=100").json["predictions"]
    assert len(listed) == given
    assert all(item["outcome"] is not None for item in listed)
    first = next(item for item in listed if item["id"].startswith(labelled["ids"][0]))
    assert list(first["inputs"].values()) == [[pytest.approx(x) for x in ROWS[2].tolist()]] or len(
        first["inputs"]
    ) == len(ROWS[2])
    counted = command("predictions", "count", "--client", "labels", "--items", "--outcome", "=1", *of(server), "--json")
    assert json.loads(counted.stdout)["count"] == server.count(client="labels", items="true", outcome="%3D1") >= 2
    for query in ("client=labels", "client=labels&items=true", "client=nobody"):
        lines = server.ask("GET", f"/v1/predictions/export?{query}").body.splitlines()
        parquet = server.ask("GET", f"/v1/predictions/export?{query}&format=parquet")
        assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
        table = pq.read_table(io.BytesIO(parquet.body)).to_pylist()
        assert [row["id"] for row in table] == [json.loads(line)["id"] for line in lines]
        for row, line in zip(table, map(json.loads, lines), strict=True):
            assert json.loads(row["inputs"]) == line["inputs"]
            assert row["time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ") == line["time"]
    out = tmp_path / "items.parquet"
    wanted = ("--items", "--client", "labels", "--format", "parquet", "--out", out)
    done = command("predictions", "export", *wanted, *of(server))
    assert done.returncode == 0, done.stderr
    assert pq.read_table(out).num_rows == 18


def test_an_outcome_that_comes_before_its_record_is_joined(serve: Callable[..., RunningServer]) -> None:
    """With the drain held, the record is in the spool alone: 202, and the outcome is on the record once it is stored.
    An id that nobody gave out is refused then too."""
    server = serve()
    assert server.publish("signs", signs(), "1").status == 201
    key = server.create_key("early", rate="1000000/s")["key"]
    (drain,) = until(server.drain_pids, what="the drain's process")
    os.kill(drain, signal.SIGSTOP)
    try:
        body = trained.infer_body(x=np.zeros((1, 2), np.float32))
        reply = server.ask("POST", "/v2/models/signs/infer", body, key=key)
        assert reply.status == 200, reply.body
        one = reply.headers["x-prediction-id"]
        path = f"/v1/predictions/{one}/outcome"
        early = server.ask("POST", path, {"value": "yes"}, key=key)
        assert (early.status, early.json["joined"]) == (202, False), early.body
        assert server.ask("POST", path, {"value": "yes"}, key=key).status == 202
        other = server.create_key("other", rate="1000000/s")["key"]
        assert server.ask("POST", path, {"value": "no"}, key=other).status == 404
        unknown = one[:-1] + ("0" if one[-1] != "0" else "1")
        assert server.ask("POST", f"/v1/predictions/{unknown}/outcome", {"value": 1}, key=key).status == 404
    finally:
        os.kill(drain, signal.SIGCONT)
    until(lambda: server.count(outcome="has") == 1, what="the join")
    assert server.ask("GET", f"/v1/predictions/{one}").json["outcomes"][0]["value"] == "yes"


CANARIES = {"drop": 271828.1875, "hash": 314159.375, "mask": 161803.4375}


def test_a_redacted_value_is_in_no_file(serve: Callable[..., RunningServer], tmp_path: Path) -> None:
    """S4: values of columns that are dropped, hashed or masked are in no file of the data folder once the drain is
    through, in no export, and in no log; equal values have equal hashes, by whichever surface they came."""
    server = serve()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(signs())
    columns = ["plain, with a comma", "secret, too"]
    for number, (rule, canary) in enumerate(CANARIES.items()):
        said = {"columns": columns, "redaction": {columns[1]: rule}}
        (folder / "modelyard.json").write_text(json.dumps(said))
        done = command("publish", f"m{number}", folder, *of(server))
        assert done.returncode == 0, done.stderr
        key = server.create_key(f"client-{rule}", rate="1000000/s")["key"]
        row = np.array([[1.5, canary]], np.float32)
        item = {"items": [dict(zip(columns, row[0].tolist(), strict=True))]}
        assert server.ask("POST", f"/v2/models/m{number}/infer", trained.infer_body(x=row), key=key).status == 200
        assert server.ask("POST", f"/v1/models/m{number}/predictions", item, key=key).status == 200
        wrong = {"items": [{columns[0]: 1, columns[1]: f"text {canary}"}]}
        assert server.ask("POST", f"/v1/models/m{number}/predictions", wrong, key=key).status == 200
        assert server.ask("POST", f"/v2/models/m{number}/infer", b'{"x":%r' % canary, key=key).status == 400
    until(lambda: server.count() == 12, what="the drain")
    records = [json.loads(line) for line in server.ask("GET", "/v1/predictions/export").body.splitlines()]
    shown = [_secrets(record["inputs"], columns) for record in records if record["outputs"] and record["inputs"]]
    hashes = {value for values in shown for value in values if str(value).startswith("hmac:")}
    assert len(hashes) in (1, 2)  # the text of the refused item may be another value
    exports = [server.ask("GET", f"/v1/predictions/export?format={form}").body for form in ("jsonl", "csv", "parquet")]
    exports.append(server.ask("GET", "/v1/predictions/export?items=true").body)
    server.stop()
    for canary in CANARIES.values():
        forms = [str(canary).encode(), np.float32(canary).tobytes()]
        for export in exports[:2] + exports[3:]:
            assert not any(form in export for form in forms)
        for path in (*server.data.rglob("*"), tmp_path / "data.log", tmp_path / "data.out"):
            if path.is_file():
                content = path.read_bytes()
                assert not any(form in content for form in forms), f"{canary} is in {path}"
    secret = server.data / "redaction.key"
    assert secret.stat().st_mode & 0o777 == 0o600


def _secrets(inputs: Any, columns: list[str]) -> list[Any]:
    rows = inputs["x"] if isinstance(inputs, dict) else inputs
    assert all(columns[0] in row for row in rows), inputs
    return [row.get(columns[1]) for row in rows]
