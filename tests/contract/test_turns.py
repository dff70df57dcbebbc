"""All requests of one turn, of whatever surface, over real sockets: the caller cannot tell (P3, API-6)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from http_worker import HttpWorker
from raw_http import Caller, Reply, request, until

MATES = 64
CSV = "content-type: text/csv"
TREE = "x-modelyard-model: tree"
Surface = tuple[str, tuple[str, ...], str]
SURFACES: dict[str, Surface] = {
    "oip": ("/v2/models/tree/infer", (), '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[N,1]}]}'),
    "tf rows": ("/v1/models/tree:predict", (), '{"instances":[[N,1]]}'),
    "tf columns": ("/v1/models/tree/versions/1:predict", (), '{"inputs":{"a":[N],"b":[1]}}'),
    "split": ("/invocations", (TREE,), '{"dataframe_split":{"columns":["b","a"],"data":[[1,N]]}}'),
    "records": ("/invocations", (TREE,), '{"dataframe_records":[{"a":N,"b":1}]}'),
    "instances": ("/invocations", (TREE,), '{"instances":[[N,1]]}'),
    "inputs": ("/invocations", (TREE,), '{"inputs":[[N,1]]}'),
    "csv": ("/invocations", (TREE, CSV), "a,b\nN,1\n"),
    "items": ("/v1/models/tree/predictions", (), '{"items":[{"a":N,"b":1}]}'),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[HttpWorker]:
    started = HttpWorker()
    started.settings = started.settings.model_copy(
        update={"batching": started.settings.batching.model_copy(update={"max_loop_run_us": 1e9})}
    )
    started.start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def close_callers() -> Iterator[None]:
    yield
    Caller.close_all()


def asked(worker: HttpWorker, surface: Surface, number: str) -> bytes:
    target, headers, body = surface
    return request(target, body.replace("N", number), key=worker.key, headers=headers)


def in_one_turn(worker: HttpWorker, sent: list[bytes]) -> list[Reply]:
    """Each on a connection of its own, all read by the loop in one turn."""
    callers = [Caller(worker.port) for _ in sent]
    until(lambda: worker.on_loop(lambda: len(worker.shared.connections)) >= len(sent))
    held, release = threading.Event(), threading.Event()
    worker.loop.call_soon_threadsafe(lambda: (held.set(), release.wait(10)))
    assert held.wait(10)
    for caller, one in zip(callers, sent, strict=True):
        caller.send(one)
    release.set()
    return [caller.reply() for caller in callers]


def alone(worker: HttpWorker, sent: bytes) -> Reply:
    caller = Caller(worker.port)
    caller.send(sent)
    reply = caller.reply()
    caller.close()
    return reply


def plain(reply: Reply) -> Any:
    """All of a reply but what is each one's own; of the body only the ids are."""
    own = ("date", "x-request-id", "x-prediction-id", "ratelimit-remaining", "ratelimit-reset")
    headers = {name: value for name, value in reply.headers.items() if name not in own}
    body = reply.body.replace(reply.headers["x-prediction-id"].encode(), b"ID")
    return reply.status, headers, body.replace(reply.headers["x-request-id"].encode(), b"ID")


@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_a_turn_gives_what_each_gets_alone(worker: HttpWorker, surface: Surface) -> None:
    """64 of a turn, twice, the second time with a form that is known: status, fields and bytes as of one alone."""
    sent = [asked(worker, surface, str(number)) for number in range(MATES)]
    told = [plain(alone(worker, one)) for one in sent]
    assert {status for status, _, _ in told} == {200}
    for _ in range(2):
        assert [plain(reply) for reply in in_one_turn(worker, sent)] == told


@pytest.mark.parametrize("bad", ["1-2", "x", "1,", "]", "1e400", "null", '"y"'])
@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_a_malformed_one_hurts_nobody(worker: HttpWorker, surface: Surface, bad: str) -> None:
    """One bad body among 63 good ones gets its own refusal, they get their own answers."""
    numbers = [bad if place == 31 else str(place) for place in range(MATES)]
    sent = [asked(worker, surface, number) for number in numbers]
    told = [plain(alone(worker, one)) for one in sent]
    assert [plain(reply) for reply in in_one_turn(worker, sent)] == told
    assert [place for place, (status, _, body) in enumerate(told) if status != 200 or b'"error"' in body] == [31]


def test_all_surfaces_in_one_turn(worker: HttpWorker) -> None:
    """Every surface seven times in a turn, a bad one of each among them: all get what they get alone, in one run."""
    sent = [asked(worker, surface, str(number)) for number in range(6) for surface in SURFACES.values()]
    sent += [asked(worker, surface, "x") for surface in SURFACES.values()]
    told = [plain(alone(worker, one)) for one in sent]
    records = worker.journal.records
    replies = in_one_turn(worker, sent)
    assert [plain(reply) for reply in replies] == told
    assert worker.journal.records == records + len(sent)
    assert len({reply.headers["x-prediction-id"] for reply in replies}) == len(sent)


@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_a_known_head_is_answered_alike(worker: HttpWorker, surface: Surface) -> None:
    """The first request of a connection is parsed, the next ones are looked up: each gets its own answer, the same
    fields, and the forms of bodies do not care which it was."""
    worker.on_loop(worker.shared.heads.find.clear)
    caller, replies = Caller(worker.port), []
    for number in ("1", "2", "3", "1"):
        caller.send(asked(worker, surface, number))
        replies.append(plain(caller.reply()))
        assert len(worker.shared.heads.find) == 1
    assert replies[0] == replies[3]
    assert len({json.dumps(str(body)) for _, _, body in replies}) == 3
    assert len({str(headers) for _, headers, _ in replies}) == 1
