"""Everything on DynamoDB and S3: the same commands, another `database.url`. Both are an emulator's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import trained
from server import RunningServer, command, until

from dynamo.emulator import Dynamo

ROWS = trained.cancer().rows
Serve = Callable[..., RunningServer]


def settings_of(dynamo: Dynamo) -> dict[str, str]:
    """The settings of a server in new tables and a new bucket."""
    url = dynamo.tables()
    bucket = url.removeprefix("dynamodb://")
    dynamo.objects.create_bucket(Bucket=bucket)
    return {
        "database.url": url,
        "database.endpoint_url": dynamo.url,
        "artifacts.url": f"s3://{bucket}/models",
        "artifacts.endpoint_url": dynamo.url,
    }


def predict(server: RunningServer, key: str, number: int = 0) -> str:
    """Asks for one prediction; its id."""
    reply = server.ask("POST", "/v2/models/cancer/infer", trained.infer_body(X=ROWS[number : number + 1]), key=key)
    assert reply.status == 200, reply.body
    return reply.headers["x-prediction-id"]


def test_a_yard_on_dynamodb(dynamo: Dynamo, serve: Serve, tmp_path: Path) -> None:
    """Publish, keys, traffic, predictions, outcomes, the log, the audit log; another start finds all of it, no request
    was a Scan. Throttled and failing for two seconds (F1 P1 P11), predictions go on into the spool, and each is stored
    once."""
    settings = settings_of(dynamo)
    server = serve(workers=2, settings={**settings, "database.busy_timeout_s": "1"})
    admin = server.key
    for version, factor in (("1", 1.0), ("2", 0.01)):
        assert server.publish("cancer", trained.cancer(factor).content, version).status == 201
    key = server.create_key("acme", rate="1000000/s")["key"]
    ids = [predict(server, key, number) for number in range(10)]
    until(lambda: server.count(client="acme") == 10, what="the drain")
    dynamo.fail(
        {"target": "BatchWriteItem", "times": 10**6, "status": 400, "code": "ThrottlingException"},
        {"target": "BatchGetItem", "times": 10**6, "status": 500, "code": "InternalServerError", "applied": True},
    )
    ends = time.monotonic() + 2
    while time.monotonic() < ends:
        ids.append(predict(server, key))
    until(lambda: server.events("drain.store_failed"), 20, "the drain notices")
    dynamo.fail()
    until(lambda: server.count(client="acme") == len(ids), 30, "the drain")
    page = server.ask("GET", "/v1/predictions?client=acme&limit=10").json
    assert len(page["predictions"]) == 10
    given = server.ask("POST", f"/v1/predictions/{ids[0]}/outcome", {"value": 1}, key=key)
    assert given.status == 201, given.body
    labelled = server.ask("GET", "/v1/predictions?client=acme&outcome=has").json["predictions"]
    assert [one["id"] for one in labelled] == [ids[0]]
    actions = {event["action"] for event in server.ask("GET", "/v1/audit").json["events"]}
    assert {"version:publish", "key:create"} <= actions
    assert "Scan" not in {one["target"] for one in dynamo.asked()}
    server.stop()
    assert not (tmp_path / "data" / "modelyard.db").exists()
    again = serve(workers=1, settings={**settings, "auth.admin_key": admin})
    assert again.count(client="acme") == len(ids)
    predict(again, key)
    env = {f"MODELYARD_{name.replace('.', '__').upper()}": value for name, value in settings.items()}
    looked = command("doctor", "--data", again.data, env=env).stdout
    assert "database clock" in looked
    assert "s from this machine's" in looked


def test_a_missing_table_ends_the_start_with_a_sentence(dynamo: Dynamo, tmp_path: Path) -> None:
    """No traceback; what is missing and what to do."""
    env = {"MODELYARD_DATABASE__URL": "dynamodb://n0where", "MODELYARD_DATABASE__ENDPOINT_URL": dynamo.url}
    ran = command("serve", "--data", tmp_path / "data", "--port", "0", env=env)
    assert ran.returncode != 0
    said = " ".join((ran.stdout + ran.stderr).split())
    assert "There is no table" in said
    assert "Traceback" not in said
