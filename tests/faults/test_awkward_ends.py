"""SIGTERM while something is half done, and many hands on one model (K9, D7)."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trained
from figures import record
from server import RunningServer, until
from stock import Stock
from urllib3.exceptions import HTTPError

CANCER = "/v2/models/cancer/infer"
SEED = 20261128
STOPS_WITHIN_S = 30.0

Serve = Callable[..., RunningServer]
Stocked = Callable[..., RunningServer]


def answers(server: RunningServer, key: str) -> bool:
    return server.ask("POST", CANCER, trained.infer_body(X=trained.cancer().rows[:1]), key=key).status == 200


@pytest.mark.parametrize("after_ms", [0, 40, 120, 400])
def test_a_stop_while_a_version_is_published(stocked: Stocked, stock: Stock, tmp_path: Path, after_ms: int) -> None:
    """K9 P6: SIGTERM so long after a publish was sent. It ends within 30 s with status 0; after the next start the
    version is whole or not there, and can be published; nothing of it is left half done."""
    server = stocked()
    said: list[int | None] = []

    def publish() -> None:
        try:
            said.append(server.publish("late", trained.cancer(0.01).content, "1").status)
        except HTTPError:
            said.append(None)

    sender = threading.Thread(target=publish)
    sender.start()
    sender.join(after_ms / 1000)
    assert server.stop() < STOPS_WITHIN_S
    sender.join(STOPS_WITHIN_S)
    assert not list((tmp_path / "data" / "staging").iterdir())
    again = stocked()
    there = again.ask("GET", "/v1/models/late/versions/1").status
    assert there in ((200,) if said == [201] else (200, 404))
    assert again.publish("late", trained.cancer(0.01).content, "1").status in (200, 201)
    until(lambda: answers(again, stock.key), 20, "an answer")
    again.stop()


@pytest.mark.parametrize("after_ms", [300, 700, 1100, 1500])
def test_a_stop_while_the_schema_is_made(tmp_path: Path, serve: Serve, stock: Stock, after_ms: int) -> None:
    """K9 P6: SIGTERM so long after the start on a folder that is not there yet. It ends within 30 s, and the next start
    on what it left makes a server that works."""
    given = {"auth.admin_key": stock.admin}
    server = RunningServer(tmp_path / "data", workers=1, settings=given)
    waiter = threading.Thread(target=_start_and_forget, args=(server,))
    waiter.start()
    waiter.join(after_ms / 1000)
    until(lambda: hasattr(server, "process"), 10, "the process")
    server.process.terminate()
    server.process.wait(STOPS_WITHIN_S)
    waiter.join(STOPS_WITHIN_S)
    server.end()
    again = serve(settings=given)
    assert again.publish("cancer", trained.cancer().content, "1").status == 201
    again.stop()


def _start_and_forget(server: RunningServer) -> None:
    try:
        server.start()
    except (AssertionError, IndexError):  # it ended before it accepted, as it was told
        return


def hands(server: RunningServer, key: str, threads: int, calls: int) -> Counter[str]:
    """Loads, unloads and routes of one model by so many threads; how often each status came."""
    seen: Counter[str] = Counter()
    guard = threading.Lock()

    def work(number: int) -> None:
        chance = random.Random(SEED + number)
        for _ in range(calls):
            doing = chance.choice(("load", "unload", "route", "predict"))
            if doing == "route":
                first = chance.randrange(101)
                status = server.set_traffic("cancer", v1=first, v2=100 - first).status
            elif doing == "predict":
                body = trained.infer_body(X=trained.cancer().rows[:1])
                status = server.ask("POST", CANCER, body, key=key, fresh=True).status
            else:
                status = server.ask("POST", f"/v2/repository/models/cancer/{doing}", {}, fresh=True).status
            with guard:
                seen[f"{doing} {status}"] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return seen


def many_hands(stocked: Stocked, stock: Stock, threads: int, calls: int) -> None:
    server = stocked(workers=2)
    assert server.publish("cancer", trained.cancer(0.01).content, "2").status == 201
    before = set(server.worker_pids())
    seen = hands(server, stock.key, threads, calls)
    record(f"D7 hands, {threads}", threads=threads, calls=threads * calls, **dict(sorted(seen.items())))
    assert seen.keys() <= {"load 200", "unload 409", "route 200", "route 409", "predict 200"}, seen
    assert {name.split()[0] for name in seen} == {"load", "unload", "route", "predict"}
    assert set(server.worker_pids()) == before
    assert server.set_traffic("cancer", v1=100).status == 200
    assert server.ask("GET", "/v2/models/cancer/ready", key=stock.key).status == 200
    server.stop()


def test_many_hands_on_one_model(stocked: Stocked, stock: Stock) -> None:
    """D7 P6: 8 threads load, unload, route and ask 32 times each: no worker is lost, unloading what gets traffic is
    refused, every other call is answered well, and the model is ready at the end."""
    many_hands(stocked, stock, 8, 32)


@pytest.mark.long
def test_very_many_hands_on_one_model(stocked: Stocked, stock: Stock) -> None:
    """D7: 32 threads, 1,024 times each."""
    many_hands(stocked, stock, 32, 1024)
