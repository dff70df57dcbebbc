"""Records leave a running server: deletion by subject down to the bytes (S19), holds, and sweeps by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import trained
from server import RunningServer, command, until

from modelyard.core.settings import Settings
from modelyard.storage.sql.open import open_stores
from modelyard.testing import fill_log

SUBJECT = "patient-4711-of-the-ward"
BODY = {"inputs": [{"name": "a", "shape": [1, 1], "datatype": "FP32", "data": [6]},
                   {"name": "b", "shape": [1, 1], "datatype": "FP32", "data": [3]}]}  # fmt: skip
OLD_S = 1_600_000_000


def files_with(folder: Path, text: str) -> list[str]:
    """Names of all files below that hold this text anywhere, also in what a database has freed."""
    found = [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
    return sorted(str(path.relative_to(folder)) for path in found)


def test_an_erased_subject_is_in_no_file(serve: Callable[..., RunningServer]) -> None:
    """Forty requests about a subject, by header, by body, compressed, with outcomes and Idempotency-Keys, and forty
    about others: after `retention erase` no file of the data folder has its name, nobody else lost a record, and the
    audit log verifies and does not name it."""
    server = serve()
    assert server.publish("divide", trained.divide()).status == 201
    for number in range(40):
        inside = {**BODY, "parameters": {"subject": SUBJECT}}
        headers = {"idempotency-key": f"order-{number}"} if number % 2 else {}
        if number % 4 < 2:
            mine = server.ask("POST", "/v2/models/divide/infer", inside, headers=headers)
        else:
            about = {"x-modelyard-subject": SUBJECT, **headers}
            mine = server.ask("POST", "/v2/models/divide/infer", BODY, headers=about)
        other = server.ask("POST", "/v2/models/divide/infer", BODY, headers={"x-modelyard-subject": f"other-{number}"})
        assert (mine.status, other.status) == (200, 200)
        given = server.ask("POST", f"/v1/predictions/{mine.headers['x-prediction-id']}/outcome", {"value": number})
        assert given.status in (201, 202)
    until(lambda: server.count() == 80, 20, "the drain")
    until(lambda: not files_with(server.data / "spool", SUBJECT), 20, "an empty spool")
    assert files_with(server.data, SUBJECT), "the search sees what is there"
    named = ("--server", server.url, "--key", server.key, "--subject", SUBJECT, "--json")
    planned = json.loads(command("retention", "erase", "--dry-run", *named).stdout)
    assert (planned["predictions"], server.count(subject=SUBJECT)) == (40, 40)
    done = json.loads(command("retention", "erase", *named).stdout)
    assert (done["predictions"], done["outcomes"], done["kept_answers"], done["held"]) == (40, 40, 20, 0)
    assert (server.count(subject=SUBJECT), server.count()) == (0, 40)
    assert files_with(server.data, SUBJECT) == []
    assert server.ask("GET", "/v1/audit/verify").json["sound"]
    assert SUBJECT not in server.ask("GET", "/v1/audit").body.decode()


def test_a_hold_is_stronger(serve: Callable[..., RunningServer]) -> None:
    """What a hold keeps is counted and stays; released, it goes. All by the command line, over HTTP."""
    server = serve()
    assert server.publish("divide", trained.divide()).status == 201
    about = {"x-modelyard-subject": SUBJECT}
    assert server.ask("POST", "/v2/models/divide/infer", BODY, headers=about).status == 200
    until(lambda: server.count() == 1, 20, "the drain")
    there = ("--server", server.url, "--key", server.key, "--json")
    held = json.loads(command("retention", "hold", "--reason", "case 2026-17", "--model", "divide", *there).stdout)
    done = json.loads(command("retention", "erase", "--subject", SUBJECT, *there).stdout)
    assert (done["predictions"], done["held"], server.count()) == (0, 1, 1)
    assert json.loads(command("retention", "holds", *there).stdout)["holds"] == [held]
    assert command("retention", "release", held["id"], *there).returncode == 0
    assert json.loads(command("retention", "erase", "--subject", SUBJECT, *there).stdout)["predictions"] == 1
    assert command("retention", "release", held["id"], *there).returncode == 3


def test_old_records_leave_by_themselves(serve: Callable[..., RunningServer], tmp_path: Path) -> None:
    """A server sweeps every retention.interval_s: a thousand records of years ago and one of now; the one stays. A
    part of the log that is too large to be a usual day's waits until somebody says so."""
    data = tmp_path / "data"
    stores = open_stores(Settings(), data)
    with stores.log._database.write() as connection:  # type: ignore[attr-defined]
        fill_log(connection, 0, 1000, OLD_S)
    stores.close()
    shown = json.loads(command("retention", "show", "--data", data, "--json").stdout)
    assert (shown["due"]["predictions"], shown["put_off"]) == (1000, "too_many_at_once")
    put_off = command("retention", "run", "--data", data)
    assert (put_off.returncode, "--force" in put_off.stderr) == (1, True)
    server = serve(settings={"retention.interval_s": "0.2", "retention.max_share": "1"})
    assert server.publish("divide", trained.divide()).status == 201
    assert server.ask("POST", "/v2/models/divide/infer", BODY).status == 200
    until(lambda: server.count() == 1, 30, "the sweep")
    swept = until(lambda: server.events("retention.swept"), 10, "retention.swept")
    assert swept[0]["predictions"] == 1000
    (event,) = server.ask("GET", "/v1/audit?action=retention:delete").json["events"]
    assert (event["after"]["predictions"], event["actor"].split(":")[0]) == (1000, "server")
