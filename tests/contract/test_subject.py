"""Whose prediction it is: the header's word, else the body's; it decides the arm and stands in the record (P12)."""

from __future__ import annotations

import gzip
import io
import threading
import zlib
from collections.abc import Iterator

import pytest
from http_worker import HttpWorker
from raw_http import Caller, request

from modelyard.codec.log import subject_of
from modelyard.core.types import RawRequest
from modelyard.journal.frame import MARK, read_frames
from modelyard.journal.record import RecordHeader
from modelyard.predict import OFF_LOOP_BYTES, road
from modelyard.routing.ports import Endpoint
from modelyard.routing.split import assign
from modelyard.routing.table import RoutingTable
from modelyard.testing import servable

NATIVE, TWIN = "/v2/models/tree/infer", "/v2/models/tr%65e/infer"
WEIGHTS = (("1", 50), ("2", 50))


def infer(parameters: str = "") -> str:
    return f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,1]}}]{parameters}}}'


@pytest.fixture
def worker() -> Iterator[HttpWorker]:
    started = HttpWorker(models=(servable(version="1"), servable(version="2"))).start()
    split = RoutingTable(2, [Endpoint("tree", "tree", WEIGHTS)], {("tree", m.version): m for m in started.models})
    started.on_loop(lambda: setattr(started.predictor, "table", split))
    yield started
    Caller.close_all()
    started.stop()


def ask(worker: HttpWorker, target: str, parameters: str, *headers: str) -> tuple[str, RecordHeader]:
    """The version that answered, and the record."""
    caller = Caller(worker.port)
    caller.send(request(target, infer(parameters), key=worker.key, headers=headers))
    reply = caller.reply()
    assert reply.status == 200, reply.body
    (frame,) = read_frames(io.BytesIO(b"".join([*worker.journal.turns[-1], MARK])))
    return reply.headers["x-model-version"], frame.record_header()


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_subject_stays_with_its_arm(worker: HttpWorker, target: str) -> None:
    """In the header or in the body, the same subject meets the version that the pure function says, every time."""
    for number in range(20):
        subject = f"patient-{number}"
        arm = assign("tree", subject, WEIGHTS)
        for parameters, headers in (
            ("", (f"x-modelyard-subject: {subject}",)),
            (f',"parameters":{{"subject":"{subject}"}}', ()),
            (',"parameters":{"subject":"another"}', (f"x-modelyard-subject: {subject}",)),
        ):
            version, header = ask(worker, target, parameters, *headers)
            assert (version, header.arm) == (WEIGHTS[arm][0], arm)
            assert header.subject == subject


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_without_a_subject_the_prediction_decides(worker: HttpWorker, target: str) -> None:
    """Its id is its subject, and the record names none."""
    for _ in range(20):
        _, header = ask(worker, target, "")
        assert (header.arm, header.subject) == (assign("tree", header.id, WEIGHTS), "")


@pytest.mark.parametrize("target", [NATIVE, TWIN])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_subject_inside_a_compressed_body_stays_too(worker: HttpWorker, target: str, encoding: str) -> None:
    """It decides the arm like any other, and the answer, its version and the record are those of one version; the
    header's subject goes before it."""
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    for number in range(20):
        subject = f"patient-{number}"
        body = pack(infer(f',"parameters":{{"subject":"{subject}"}}').encode())
        for named, headers in ((subject, ()), (f"other-{number}", (f"x-modelyard-subject: other-{number}",))):
            arm = assign("tree", named, WEIGHTS)
            caller = Caller(worker.port)
            sent = (f"content-encoding: {encoding}", *headers)
            caller.send(request(target, body, key=worker.key, headers=sent))
            reply = caller.reply()
            assert reply.status == 200, reply.body
            (frame,) = read_frames(io.BytesIO(b"".join([*worker.journal.turns[-1], MARK])))
            header = frame.record_header()
            assert (header.version, header.arm) == (WEIGHTS[arm][0], arm)
            assert reply.headers["x-model-version"] == header.version
            assert header.subject == named


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_compressed_body_that_is_none_is_refused_by_one_version(worker: HttpWorker, target: str) -> None:
    """decompression_failed, with a record of the version that the prediction's own id chose."""
    caller = Caller(worker.port)
    caller.send(request(target, b"no gzip", key=worker.key, headers=("content-encoding: gzip",)))
    reply = caller.reply()
    (frame,) = read_frames(io.BytesIO(b"".join([*worker.journal.turns[-1], MARK])))
    header = frame.record_header()
    assert (reply.status, reply.json["code"]) == (400, "decompression_failed")
    assert header.arm == assign("tree", header.id, WEIGHTS)


@pytest.mark.parametrize("target", [NATIVE, TWIN])
def test_a_large_body_is_searched_off_the_loop(
    worker: HttpWorker, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subject decides the arm as ever, but a body over 256 KiB is read in the decoder's thread: on the loop it
    would hold up everybody else."""
    threads: list[threading.Thread] = []

    def noted(raw: RawRequest) -> str:
        threads.append(threading.current_thread())
        return subject_of(raw)

    monkeypatch.setattr(road, "subject_of", noted)
    for number in range(8):
        subject = f"patient-{number}"
        arm = assign("tree", subject, WEIGHTS)
        version, header = ask(worker, target, f',"parameters":{{"subject":"{subject}"}}' + " " * OFF_LOOP_BYTES)
        assert (version, header.arm, header.subject) == (WEIGHTS[arm][0], arm, subject)
    assert len(threads) == 8
    assert worker.thread not in threads
