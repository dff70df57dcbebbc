"""The index of answers under Idempotency-Keys: one prediction for each key, whatever dies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core.errors import ConflictError
from modelyard.core.settings import JournalSettings
from modelyard.journal.frame import encode_frame
from modelyard.journal.ports import KeptAnswer
from modelyard.journal.spool import SpoolWriter
from modelyard.storage.file.kept import KeptAnswers
from modelyard.testing import FakeClock, prediction_record

EPOCH = 0xABC
ID = f"{EPOCH:016x}{0:010x}"
ANSWER = KeptAnswer(ID, 200, "1", None, b'{"a": 1}')


class Host:
    """Two workers' indexes over one folder, and the first one's spool."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.spool = folder / "spool"
        self.one = KeptAnswers(folder / "kept", self.spool, EPOCH, self.clock)
        self.two = KeptAnswers(folder / "kept", self.spool, 0xDEF, self.clock)
        self.one.hold()
        self.two.hold()

    def write(self, status: int, answer: bytes = ANSWER.body) -> None:
        writer = SpoolWriter(self.spool, EPOCH, JournalSettings(), self.clock)
        header = prediction_record(
            id=ID, client="c", idempotency="k", status=status, version="1", answer_header_length=-1
        ).header
        writer.append(encode_frame(header, b"", answer))
        writer.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.one.close()
    made.two.close()


def code_of(host: Host, digest: bytes = b"d") -> str:
    with pytest.raises(ConflictError) as refused:
        host.two.begin("c", "k", digest, "another")
    return refused.value.code


def test_one_prediction_for_a_key(host: Host) -> None:
    """Taken once over all workers; then the answer, byte for byte; other clients and keys are their own."""
    assert host.one.begin("c", "k", b"d", ID) is None
    assert code_of(host) == code_of(host, b"other") == "idempotency_in_use"
    assert host.two.begin("c", "k2", b"d", "x") is None
    assert host.two.begin("c2", "k", b"d", "y") is None
    host.one.finish("c", "k", ANSWER)
    assert host.two.begin("c", "k", b"d", "another") == ANSWER
    assert code_of(host, b"other") == "idempotency_mismatch"


def test_a_failure_lets_the_key_go(host: Host) -> None:
    """500 and more release the key; 4xx is kept."""
    host.one.begin("c", "k", b"d", ID)
    host.one.finish("c", "k", KeptAnswer(ID, 503, "1", None, b""))
    assert host.two.begin("c", "k", b"d", "next") is None
    bad = KeptAnswer("next", 400, "1", None, b"no")
    host.two.finish("c", "k", bad)
    assert host.one.begin("c", "k", b"d", "third") == bad


def test_a_key_lasts_a_day(host: Host) -> None:
    """Just before the day is over it answers, after it the key is new; expired rows are deleted."""
    host.one.begin("c", "k", b"d", ID)
    host.one.finish("c", "k", ANSWER)
    host.clock.advance(24 * 3600 - 1)
    assert host.two.begin("c", "k", b"d", "x") == ANSWER
    host.clock.advance(2)
    host.two.tend()
    assert host.two._database.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    assert host.one.begin("c", "k", b"other", "y") is None


@pytest.mark.parametrize("status", [200, 499])
def test_a_dead_workers_answer_is_found_in_the_spool(host: Host, status: int) -> None:
    """It died after the record was written: while it lives nothing is touched, then the logged answer is kept."""
    host.one.begin("c", "k", b"d", ID)
    host.write(status)
    host.two.tend()
    assert code_of(host) == "idempotency_in_use"
    host.one.close()
    host.two.tend()
    assert host.two.begin("c", "k", b"d", "x") == ANSWER


@pytest.mark.parametrize("status", [0, 500, 503])
def test_what_never_ran_lets_the_key_go(host: Host, status: int) -> None:
    """Status 0 is a caller that left before the run: its retry must run, not wait for ever."""
    host.one.begin("c", "k", b"d", ID)
    host.one.finish("c", "k", KeptAnswer(ID, status, "1", None, b""))
    assert host.two.begin("c", "k", b"d", "x") is None


def test_a_dead_workers_caller_that_left_before_the_run(host: Host) -> None:
    """Its record says 499 and has no answer: the key is free."""
    host.one.begin("c", "k", b"d", ID)
    host.write(499, b"")
    host.one.close()
    host.two.tend()
    assert host.two.begin("c", "k", b"d", "x") is None


@pytest.mark.parametrize("written", [False, True])
def test_a_dead_workers_key_without_an_answer_is_free(host: Host, written: bool) -> None:
    """It died before the record, or the record says 503: a retry runs."""
    host.one.begin("c", "k", b"d", ID)
    if written:
        host.write(503)
    host.one.close()
    host.two.tend()
    assert host.two.begin("c", "k", b"d", "x") is None


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough for a header" * 40, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_broken_index_is_put_aside(tmp_path: Path, content: bytes) -> None:
    """A power loss may break it: the server starts, with an empty one; the broken file is kept for a look."""
    folder = tmp_path / "kept"
    folder.mkdir()
    KeptAnswers(folder, tmp_path / "spool", EPOCH, FakeClock()).close()
    (index,) = [path for path in folder.iterdir() if path.suffix == ".db"]
    index.write_bytes(content)
    opened = KeptAnswers(folder, tmp_path / "spool", EPOCH, FakeClock())
    assert opened.begin("c", "k", b"d", ID) is None
    opened.close()
    assert index.with_name(f"{index.name}.broken").read_bytes() == content


OPENERS, FOLDERS = 4, 40
OPEN_EACH = """
import sys
from pathlib import Path
from modelyard.core.clock import SystemClock
from modelyard.storage.file.kept import KeptAnswers

for line in sys.stdin:
    KeptAnswers(Path(line.strip()) / "kept", Path(line.strip()) / "spool", 1, SystemClock()).close()
    print("opened", flush=True)
"""


def test_processes_that_open_a_new_folder_at_once_all_get_in(tmp_path: Path) -> None:
    """Workers and drain start together: none dies of the other's change to the write-ahead log."""
    openers = [
        subprocess.Popen([sys.executable, "-c", OPEN_EACH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(OPENERS)
    ]
    try:
        for number in range(FOLDERS):
            for opener in openers:
                assert opener.stdin is not None
                opener.stdin.write(f"{tmp_path / str(number)}\n")
                opener.stdin.flush()
            for opener in openers:
                assert opener.stdout is not None
                assert opener.stdout.readline() == "opened\n"
    finally:
        for opener in openers:
            opener.kill()
            opener.communicate()


def test_the_oldest_answers_go_where_there_are_too_many(tmp_path: Path) -> None:
    """Past its bound the index forgets the oldest, says how many, and keeps the newest and what is running."""
    clock, bound = FakeClock(), 512 * 1024
    index = KeptAnswers(tmp_path / "kept", tmp_path / "spool", EPOCH, clock, max_bytes=bound)
    index.hold()
    assert index.begin("c", "running", b"d", "running") is None
    body = b"x" * 1000
    for number in range(2000):
        clock.advance(1)
        index.begin("c", str(number), b"d", str(number))
        index.finish("c", str(number), KeptAnswer(str(number), 200, "1", None, body))
    forgotten = index.tend()
    left = index._database.execute("SELECT count(*), sum(length(answer)) FROM kept").fetchone()
    assert left[0] == 2001 - forgotten
    assert bound / 2 < left[1] < bound
    assert index.begin("c", "0", b"d", "again") is None
    kept = index.begin("c", "1999", b"d", "again")
    assert kept is not None
    assert kept.body == body
    with pytest.raises(ConflictError, match="still running"):
        index.begin("c", "running", b"d", "again")
    assert index.tend() == 0
    index.close()
