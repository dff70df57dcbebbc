"""K2, K5, K6 for jailed models: each way in which a process can fail has its code, and nothing hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jailed import BOUNDS, back, jailed, misdeed, python_model
from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelError, UnavailableError
from modelyard.core.types import Array
from modelyard.http.processes.board import Board
from modelyard.http.processes.health import RunNotes, Suspects, UnhealthyVersions, version_token
from modelyard.models.stage import hash_folder
from modelyard.runtimes.jail.model import JailedModel
from modelyard.runtimes.remote import model

SOURCE = '''
import ctypes, json, os, signal, struct, sys, time
import numpy as np

CHANNEL = json.loads(sys.argv[1])["channel"]


def asked():
    """The number of the run that is going on, out of the frames below."""
    frame = sys._getframe()
    while "order" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["order"].id


def say(body):
    os.write(CHANNEL, struct.pack("<I", len(body)) + body)


def answer(number, outputs):
    import msgspec
    from modelyard.runtimes.remote.wire import Answer, Placed, frame
    os.write(CHANNEL, frame(Answer(number, tuple(Placed(*each) for each in outputs))))
    time.sleep(60)


class Model:
    def load(self, folder):
        pass

    def predict(self, inputs):
        x = inputs["x"]
        number = int(x[0, 0])
        good = ("y", "FP64", (1, 2), 0, 16)
        if number == 1:
            os._exit(1)
        if number == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        if number == 4:
            while True:
                pass
        if number == 5:
            ctypes.PyDLL(None).sleep(3600)  # with the interpreter's lock
        if number == 6:
            np.ones(10 * 1024**3 // 8)
        if number == 7:
            os.close(CHANNEL)
            time.sleep(60)
        if number == 8:
            say(b"\\xc1 this is no message")
            time.sleep(60)
        if number == 9:
            answer(asked(), [good, good])
        if number == 10:
            import modelyard.runtimes.remote.wire as wire
            os.write(CHANNEL, wire.frame(wire.Answer(asked(), (wire.Placed(*good),))))
        if number == 11:
            answer(asked(), [])
        if number == 12:
            answer(asked(), [("y", "FP64", (3, 2), 0, 48)])
        if number == 13:
            answer(asked(), [("y", "FP32", (1, 2), 0, 8)])
        if number == 14:
            answer(asked(), [("y", "FP64", (1, 2), 2**40, 16)])
        if number == 15:
            answer(asked(), [("y", "FP64", (1, 2), 0, 8)])
        if number == 16:
            os.write(CHANNEL, struct.pack("<I", 2**32 - 1))
            time.sleep(60)
        if number == 17:
            raise ValueError("I do not like /etc/passwd\\n\\x1b[31m" + "x" * 10_000)
        if number == 18:
            raise SystemExit(3)
        if number == 19:
            return {"z": x}
        if number == 20:
            return x
        if number == 21:
            answer(asked() + 7, [good])
        return {"y": x * 2}
'''

DEATHS = {
    1: "model_exited", 2: "model_crashed", 3: "model_timeout", 4: "model_timeout", 5: "model_timeout",
    7: "model_hung_up", 8: "reply_garbled", 9: "reply_mismatched", 10: "reply_repeated", 11: "reply_mismatched",
    12: "reply_mismatched", 13: "reply_mismatched", 14: "reply_mismatched", 15: "reply_mismatched",
    16: "reply_garbled", 18: "model_exited", 21: "reply_repeated",
}  # fmt: skip
FAILURES = {6: "model_out_of_memory", 17: "model_failed", 19: "model_failed", 20: "model_failed"}
PATIENT = msgspec.structs.replace(BOUNDS, deaths=10_000, run_s=0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of all misdeeds."""
    return python_model(tmp_path_factory.mktemp("deaths"), SOURCE)


@pytest.fixture(scope="module")
def bad(folder: Path) -> Iterator[JailedModel]:
    """It, in a jail that is opened again however often it dies."""
    loaded = jailed(folder, PATIENT)
    yield loaded
    loaded.close()


@pytest.mark.parametrize(("number", "code"), DEATHS.items())
def test_each_end_of_a_process_has_its_code(bad: JailedModel, number: int, code: str) -> None:
    """K5: exit, crash, stop, endless loop, held lock, closed channel, garbage, two answers, wrong count, datatype or
    place: its own code within the deadline; whoever comes next hears 503 at once until the process is back."""
    back(bad)
    bad._deaths.clear()  # the pauses have a test of their own
    begun_s, pid = time.monotonic(), bad.pid
    got = misdeed(bad, number)
    if number == 10:  # the second answer may come a moment after the first was taken: then it is seen at the next run
        got = got or misdeed(bad, 0)
    assert got == code
    assert time.monotonic() - begun_s < PATIENT.run_s + 5
    assert misdeed(bad, 0) in ("model_not_ready", "")
    assert not Path(f"/proc/{pid}").exists()
    back(bad)
    assert bad.pid != pid


@pytest.mark.parametrize(("number", "code"), FAILURES.items())
def test_a_failure_leaves_the_process_alive(bad: JailedModel, number: int, code: str) -> None:
    """K5: too much memory, an exception, a wrong answer of the class: a code, no path, no control character, bounded;
    the next run is answered by the same process."""
    back(bad)
    pid = bad.pid
    with pytest.raises(ModelError) as failed:
        bad.run({"x": np.full((1, 2), float(number))}, ())
    assert failed.value.code == code
    assert "/etc" not in failed.value.message
    assert failed.value.message.isprintable()
    assert len(failed.value.message) < 400
    assert misdeed(bad, 0) == ""
    assert bad.pid == pid


def test_a_kill_from_outside_hits_its_run_alone(bad: JailedModel) -> None:
    """K2: SIGKILL of the process between two runs: the next one fails, those after it are answered by a new one."""
    back(bad)
    bad._deaths.clear()
    os.kill(int(bad.pid or 0), signal.SIGKILL)
    assert misdeed(bad, 0) == "model_crashed"
    back(bad)


def test_a_jail_does_not_come_back_with_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: the class was changed on the disk while its process ran. When that dies, nothing starts on the other files,
    and callers hear why; once they are as they were published, it answers again."""
    monkeypatch.setattr(model, "BACKOFF_S", (0.0, 0.05))
    place = python_model(tmp_path / "m", SOURCE)
    loaded = jailed(place, msgspec.structs.replace(BOUNDS, deaths=1000), files=hash_folder(place, 10**6))
    (place / "mine.py").write_text(SOURCE.replace("x * 2", "x * 3"))
    try:
        assert misdeed(loaded, 1) == "model_exited"
        until_s, said = time.monotonic() + 20.0, ""
        while "`mine.py` is not what was published" not in said:
            assert time.monotonic() < until_s, said
            with pytest.raises(UnavailableError) as refused:
                loaded.run({"x": np.full((1, 2), 0.5)}, ())
            said = refused.value.message
            time.sleep(0.02)
        (place / "mine.py").write_text(SOURCE)
        back(loaded)
        np.testing.assert_array_equal(loaded.run({"x": np.full((1, 2), 0.5)}, ())["y"], np.ones((1, 2)))
    finally:
        loaded.close()


def test_a_crash_loop_ends(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K6: after the fifth death within a minute the process is not started again and the version is called unhealthy,
    once; a neighbour is not hurt."""
    monkeypatch.setattr(model, "BACKOFF_S", (0.0, 0.05))
    board = Board.create(tmp_path / "board")
    notes = RunNotes(board.runs(0), UnhealthyVersions(tmp_path / "ill"), SystemClock())
    guilty: list[int] = []
    notes.judge(Suspects(5, 60.0), guilty.append)
    ill, well = (jailed(folder, msgspec.structs.replace(BOUNDS, deaths=5)) for _ in range(2))
    watched = notes.watched("tree", "1", ill)
    pids = set()
    try:
        for death in range(5):
            back(ill)
            pids.add(ill.pid)
            assert guilty == []
            with pytest.raises(ModelError, match="status 1"):
                watched.run({"x": np.ones((1, 2))}, ())
            assert death < 4 or guilty == [version_token("tree", "1")]
        with pytest.raises(UnavailableError):
            watched.run({"x": np.zeros((1, 2))}, ())
        assert ill._starting is None
        assert len(pids) == 5
        assert misdeed(well, 0) == ""
    finally:
        ill.close()
        well.close()
        board.close()


def test_many_runs_of_all_sizes_come_back_right(bad: JailedModel) -> None:
    """Rows from one to as many as fit: each answer is its own input's; more is refused with the setting's name, and
    the process lives on."""
    back(bad)
    draw = np.random.default_rng(3)
    for rows in (1, 2, 100, 4096, 200_000):
        given: Array = draw.normal(size=(rows, 2))
        given[0, 0] = 0.5  # no misdeed
        np.testing.assert_array_equal(bad.run({"x": given}, ())["y"], given * 2)
    with pytest.raises(ModelError) as refused:
        bad.run({"x": np.zeros((300_000, 2))}, ())
    assert (refused.value.code, refused.value.detail["field"]) == ("tensors_too_large", "models.jail_tensor_bytes")
    assert misdeed(bad, 0) == ""
