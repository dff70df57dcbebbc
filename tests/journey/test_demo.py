"""`modelyard demo`: it holds, it leaves nothing behind, and it notices when a claim is broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3
from server import clean_environment, until
from typer.testing import CliRunner

from modelyard.cli import demo as command
from modelyard.cli.demonstration import training
from modelyard.cli.demonstration.calling import Form, Got, request
from modelyard.cli.demonstration.claims import claims
from modelyard.cli.demonstration.play import Asking, Findings, Logged, Switch
from modelyard.cli.demonstration.server import DemoServer
from modelyard.cli.demonstration.training import Lesson
from modelyard.core.errors import CommandError

DEMO_WITHIN_S = 180


def demo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose temporary folders are made in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", "demo", *arguments],
        env=clean_environment({"TMPDIR": str(folder), "COLUMNS": "80"}),
        capture_output=True,
        text=True,
        timeout=DEMO_WITHIN_S,
        check=False,
    )


def processes_of(folder: Path) -> list[int]:
    """The processes whose command line names the folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_every_claim_holds_and_nothing_stays(tmp_path: Path) -> None:
    """Exit code 0, a report of all claims that fits 80 columns, no process and no file left, no secret shown."""
    done = demo(folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 6 claims hold" in done.stdout
    assert "status 401" in done.stdout
    assert "✗" not in done.stdout
    table = done.stdout[: done.stdout.index("Where to go next")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 100
    assert "mdy_" not in done.stdout + done.stderr
    assert (done.stderr, list(tmp_path.iterdir()), processes_of(tmp_path)) == ("", [], [])


def test_kept_server_answers_until_it_is_stopped(tmp_path: Path) -> None:
    """`--keep --json`: one JSON document, whose address and key work, and whose process ends in order."""
    done = demo("--keep", "--json", folder=tmp_path)
    report = json.loads(done.stdout)
    try:
        assert done.returncode == 0
        assert report["holds"] is True
        assert [claim["holds"] for claim in report["claims"]] == [True] * 6
        assert all(set(one["over_http"].values()) == {one["offline"]} for one in report["accuracy"])
        key = {"x-api-key": report["admin_key"]}
        answer = urllib3.request("GET", f"{report['url']}/v1/predictions/count?client=demo", headers=key, timeout=10)
        answered = json.loads(answer.data)["count"]
        assert str(answered) in report["claims"][1]["seen"].replace(",", "")
    finally:
        os.kill(report["pid"], signal.SIGTERM)
    until(lambda: not Path(f"/proc/{report['pid']}").exists() or _is_zombie(report["pid"]), 30, "its end")
    until(lambda: not processes_of(tmp_path), 5, "the end of all its processes")


def _is_zombie(pid: int) -> bool:
    """Where no init reaps, an orphan stays as an entry of the process table alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM stop the server and remove its folder; no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modelyard.cli.main", "demo"],
        env=clean_environment({"TMPDIR": str(tmp_path)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: processes_of(tmp_path) or process.poll() is not None, DEMO_WITHIN_S, "a server")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert (list(tmp_path.iterdir()), processes_of(tmp_path)) == ([], [])


@pytest.fixture
def small() -> tuple[Lesson, Lesson]:
    """Two versions that disagree on the last of three rows; nothing is trained."""
    rows = np.zeros((3, 2), np.float32)
    one = Lesson("m", "1", "", b"", ("a", "b"), ("no", "yes"), rows, np.array([0, 1, 0]), np.array([0, 1, 1]))
    return one, replace(one, version="2", offline=np.array([0, 1, 0]))


def got(lesson: Lesson, form: Form, row: int, number: int, **changes: Any) -> Got:
    """A good answer, with changes."""
    asked = request(lesson, form, row, 1, pinned=True)
    label = (int(lesson.offline[row]),)
    return replace(Got(asked, 200, label, lesson.version, lesson.version, f"p{number}", number, 0.001), **changes)


@pytest.fixture
def good(small: tuple[Lesson, Lesson]) -> Findings:
    """Findings in which every claim holds."""
    one, two = small
    askings = tuple(
        Asking(lesson, form, 1, tuple(got(lesson, form, row, 100 * at + 10 * place + row) for row in range(3)))
        for at, lesson in enumerate(small)
        for place, form in enumerate(Form)
    )
    switched = (*(got(one, Form.OIP_JSON, row, 1000 + row) for row in range(3)),
                *(got(two, Form.OIP_JSON, row, 1010 + row) for row in range(3)))  # fmt: skip
    switch = Switch(small, switched, 1003.0, 1005.0)
    ids = tuple(answer.prediction_id for asking in askings for answer in asking.got)
    ids += tuple(answer.prediction_id for answer in switched)
    return Findings(askings, switch, Logged(len(ids), ids, 0.1, {}), 401, 0.1)


def failing(findings: Findings) -> list[int]:
    """The places of the claims that do not hold."""
    return [place for place, claim in enumerate(claims(findings)) if not claim.holds]


def in_askings(findings: Findings, **changes: Any) -> Findings:
    first = findings.askings[0]
    changed = replace(first, got=(replace(first.got[0], **changes), *first.got[1:]))
    return replace(findings, askings=(changed, *findings.askings[1:]))


def in_switch(findings: Findings, place: int, **changes: Any) -> Findings:
    answers = list(findings.switch.got)
    answers[place] = replace(answers[place], **changes)
    return replace(findings, switch=replace(findings.switch, got=tuple(answers)))


def in_log(findings: Findings, **changes: Any) -> Findings:
    return replace(findings, logged=replace(findings.logged, **changes))


SAME, LOGGED, LOST, MIXED, MOVED, REVOKED = range(6)
BREAKS: dict[str, tuple[Callable[[Findings], Findings], list[int]]] = {
    "nothing": (lambda f: f, []),
    "a wrong label": (lambda f: in_askings(f, labels=(1,)), [SAME]),
    "a refused row": (lambda f: in_askings(f, labels=(-1,)), [SAME]),
    "an unanswered row": (lambda f: in_askings(f, labels=(), status=500), [SAME, LOGGED]),
    "another version than asked": (lambda f: in_askings(f, version="2"), [SAME]),
    "a record too few": (lambda f: in_log(f, count=f.logged.count - 1, ids=f.logged.ids[1:]), [LOGGED]),
    "a record twice": (lambda f: in_log(f, ids=(*f.logged.ids[1:], f.logged.ids[1])), [LOGGED]),
    "a wrong count": (lambda f: in_log(f, count=f.logged.count + 1), [LOGGED]),
    "a lost request": (lambda f: in_switch(f, 2, status=503, prediction_id="", labels=()), [LOGGED, LOST]),
    "a connection that broke": (lambda f: in_switch(f, 2, status=0, version="", labels=()), [LOGGED, LOST]),
    "the header of one, the body of another": (lambda f: in_switch(f, 2, said="2"), [MIXED]),
    "the label of the other version": (lambda f: in_switch(f, 2, labels=(0,)), [MIXED]),
    "an unknown version": (lambda f: in_switch(f, 2, version="3", said="3"), [MIXED]),
    "the old version after the switch": (lambda f: in_switch(f, 2, sent_s=1006.0), [MOVED]),
    "no switch at all": (
        lambda f: replace(f, switch=replace(f.switch, got=f.switch.got[:3])),
        [LOGGED, MOVED],
    ),
    "a revoked key that works": (lambda f: replace(f, revoked_status=200), [REVOKED]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_breaks_its_claim(good: Findings, name: str) -> None:
    """Each way to break a promise fails the claims that speak of it, and no other."""
    damage, broken = BREAKS[name]
    assert failing(damage(good)) == broken


def in_process(monkeypatch: pytest.MonkeyPatch, made: tuple[Lesson, ...], findings: Findings | None) -> int:
    """The command's exit code with these lessons; with `findings` no server is started."""
    monkeypatch.setattr(command, "lessons", lambda done: made)
    if findings is not None:
        monkeypatch.setattr(command, "run", lambda *_: findings)
    return CliRunner().invoke(command.app, ["--json"]).exit_code


def test_a_failed_claim_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, small: tuple[Lesson, Lesson], good: Findings
) -> None:
    """0 where all hold, 1 where one does not."""
    assert in_process(monkeypatch, small, good) == 0
    assert in_process(monkeypatch, small, in_switch(good, 2, said="2")) == 1


def test_a_server_that_answers_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a real server: one row of the offline labels is changed before the run, and the demo ends with 1."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = list(training._cancer())
    offline = first.offline.copy()
    offline[7] = 1 - offline[7]
    assert in_process(monkeypatch, (replace(first, offline=offline), second), None) == 1
    assert (list(tmp_path.iterdir()), processes_of(tmp_path)) == ([], [])


def test_what_goes_wrong_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A demo that breaks half-way, `--keep` or not, stops its server and removes its folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for keep in (False, True):
        with pytest.raises(ZeroDivisionError), command.server_for_demo(keep) as server:
            _start_and_break(server, tmp_path)
        assert (list(tmp_path.iterdir()), processes_of(tmp_path)) == ([], [])


def _start_and_break(server: DemoServer, folder: Path) -> None:
    server.start()
    assert processes_of(folder)
    raise ZeroDivisionError


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the demo says what to install, before it starts anything."""
    monkeypatch.setattr(training, "find_spec", lambda name: None if name == "skl2onnx" else True)
    with pytest.raises(CommandError, match=r"needs skl2onnx: pip install 'modelyard\[demo\]'"):
        training.check_installed()
