"""The publish check in many forks of one process that has the libraries already: `python check_forks.py`.

A line of JSON in (`{"folder", "signature"}`), a line of JSON out: the check's code or "served", or "died N"; and how
many bytes of memory the fork took beyond what it was born with. Nothing here starts threads before it forks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

TIMEOUT_S = 20
MEMORY_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Fate:
    """What became of one file."""

    code: str
    message: str
    grown_bytes: int


class Forks:
    """The process, asked one file after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def check(self, folder: Path, options: Mapping[str, Any]) -> Fate:
        """The fate of a folder's files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = msgspec.json.encode({"folder": str(folder), "signature": options.get("signature")}).decode()
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return Fate(**json.loads(self._process.stdout.readline()))


@contextmanager
def forks(*modules: str) -> Iterator[Forks]:
    """The process with these libraries, ended at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": "/dev/null"}
    process = subprocess.Popen(
        [sys.executable, __file__, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        yield Forks(process)
    finally:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        process.wait(TIMEOUT_S)


def _in_fork(folder: Path, signature: Any) -> dict[str, Any]:
    from modelyard.models.report import CheckOptions, Overrides
    from modelyard.runtimes.check import _answer, confine

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(TIMEOUT_S * 2)
            os.close(reading)
            said = {} if signature is None else {"signature": signature}
            overrides = msgspec.convert(said, Overrides)
            options = CheckOptions(timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES, overrides=overrides)
            born = _resident()
            confine(options)
            answer = _answer(folder, options).get("error", {"code": "served", "message": ""})
            grown = _resident(peak=True) - born
            os.write(writing, json.dumps([answer["code"], answer["message"][:300], grown]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    found = json.loads(text) if code == 0 and text else [f"died {code}", "", 0]
    return dict(zip(("code", "message", "grown_bytes"), found, strict=True))


def _resident(peak: bool = False) -> int:
    """Bytes in memory, now or at the most; a fork's peak begins at its birth."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def main() -> None:
    """Reads and answers until the end of the input. As in the check itself, libraries that print do it elsewhere."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for module in ("modelyard.runtimes.folders", "modelyard.models.load", *sys.argv[1:]):
        __import__(module)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_in_fork(Path(asked["folder"]), asked["signature"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
