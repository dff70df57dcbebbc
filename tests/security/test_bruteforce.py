"""Guessing keys (S2, P7, P4): no guess opens anything, a valid key is answered all the while, and what a guess costs
is bounded."""

from __future__ import annotations

import http.client
import os
import random
import sys
import time
from pathlib import Path

import pytest
from server import RunningServer

from modelyard.auth.keys import new_key

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))
from figures import record

SEED = 20261126
TARGET = "/v2/models/simple"


def guesses(good: str, count: int) -> list[str]:
    """Keys of the right form with a right checksum, the good key with another secret or another id, its beginnings,
    and noise."""
    chance = random.Random(SEED)
    _, identifier, secret, check = good.split("_")
    made = []
    for number in range(count):
        fresh = new_key().text
        fresh = fresh if isinstance(fresh, str) else fresh.get_secret_value()
        _, other_id, other_secret, other_check = fresh.split("_")
        made.append([
            fresh,
            f"mdy_{identifier}_{other_secret}_{check}",
            f"mdy_{other_id}_{secret}_{other_check}",
            good[: chance.randrange(len(good))] or "x",
            "".join(chance.choices("abc019_-", k=len(good))),
        ][number % 5])  # fmt: skip
    return made


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def guess(fortress: RunningServer, count: int) -> None:
    good = fortress.create_key("guessed-at", rate="1000000/s")["key"]
    (pid,) = fortress.worker_pids()
    statuses: dict[int, int] = {}
    spent, begun, lines = cpu_s(pid), time.monotonic(), len(fortress.events())
    connection = http.client.HTTPConnection("127.0.0.1", fortress.port, timeout=30)
    for number, key in enumerate(guesses(good, count)):
        connection.request("GET", TARGET, headers={"x-api-key": key})
        reply = connection.getresponse()
        reply.read()
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        if number % 100 == 0:
            assert fortress.ask("GET", TARGET, key=good).status == 200, "a valid key is refused beside guesses"
    connection.close()
    spent = (cpu_s(pid) - spent) / count
    assert set(statuses) <= {401, 429}, statuses
    assert fortress.ask("GET", TARGET, key=good).status == 200
    more = len(fortress.events()) - lines
    assert more < count / 10, "the log grows with every guess"
    record(f"S2 guessed keys, {count}", seed=SEED, guesses=count, hits=0, statuses=statuses,
           cpu_ms_each=round(spent * 1e3, 3), seconds=round(time.monotonic() - begun, 1), log_lines=more)  # fmt: skip


def test_two_thousand_guesses(fortress: RunningServer) -> None:
    """S2 P7: 2,000 wrong keys of five kinds."""
    guess(fortress, 2000)


@pytest.mark.long
def test_a_hundred_thousand_guesses(fortress: RunningServer) -> None:
    """S2: 100,000."""
    guess(fortress, 100_000)
