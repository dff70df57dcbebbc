"""Runs the publish check in its process and reads the answer, bounded in time and bytes; `models.report.Check`."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import CODES, InternalError, ModelyardError, PublishError
from modelyard.models.report import CheckOptions, CheckReport
from modelyard.runtimes.threads import LIBRARIES

MAX_ANSWER_BYTES = 16 * 1024 * 1024
EXIT_S = 5.0
"""How long a child that has answered may take to end."""
KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""What a child keeps of the environment."""


def check_in_child(folder: Path, options: CheckOptions) -> CheckReport:
    """The report of `runtimes.check`. PublishError, also for a child that dies, hangs or eats the memory."""
    command = [sys.executable, "-P", "-m", "modelyard.runtimes.check", str(folder.resolve())]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=clean_environment(options.threads),
        start_new_session=True,
    )
    try:
        answer = _converse(child, msgspec.json.encode(options), options.timeout_s)
        _await_exit(child.pid)
    finally:
        status = _end(child)
    return _read(answer, status, options)


def clean_environment(threads: int) -> dict[str, str]:
    """As little as Python needs, and the libraries' sizes: everything else may be a credential."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    sized = dict.fromkeys(LIBRARIES.values(), str(threads))
    return {**kept, **sized, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/dev/null"}


def _converse(child: subprocess.Popen[bytes], question: bytes, timeout_s: float) -> bytes:
    """Sends the options, reads until the end; PublishError for too slow or too long an answer."""
    if child.stdin is None or child.stdout is None:
        raise InternalError("internal", "The publish check has no pipes.")
    deadline = time.monotonic() + timeout_s
    parts: list[bytes] = []
    pending = memoryview(question)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(child.stdin.fileno(), False)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise _too_slow(timeout_s)
            for key, _ in selector.select(left_s):
                if key.fileobj is child.stdin:
                    pending = _send(child, pending, selector)
                    continue
                part = os.read(child.stdout.fileno(), 65_536)
                if not part:
                    return b"".join(parts)
                parts.append(part)
                if sum(map(len, parts)) > MAX_ANSWER_BYTES:
                    raise PublishError("model_unreadable", "The model's check said too much.", field="model")


def _send(child: subprocess.Popen[bytes], pending: memoryview, selector: selectors.BaseSelector) -> memoryview:
    stdin = child.stdin
    if stdin is None:
        return pending
    try:
        pending = pending[os.write(stdin.fileno(), pending[:65_536]) :]
    except BrokenPipeError:
        pending = pending[:0]
    if not pending:
        selector.unregister(stdin)
        stdin.close()
    return pending


def _await_exit(pid: int) -> None:
    """Waits until the child has ended, but leaves it unreaped: its number must stay its own until the group is
    killed. It has closed its answer, so this is short."""
    deadline = time.monotonic() + EXIT_S
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None and time.monotonic() < deadline:
        time.sleep(0.002)


def _end(child: subprocess.Popen[bytes]) -> int:
    """Ends the child and whatever it started (one process group); its exit status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None and not pipe.closed:
            pipe.close()
    return child.wait(timeout=30)


def _read(answer: bytes, status: int, options: CheckOptions) -> CheckReport:
    try:
        said = msgspec.json.decode(answer, type=dict[str, Any]) if answer else {}
        if "report" in said:
            return msgspec.convert(said["report"], CheckReport)
    except msgspec.MsgspecError:
        said = {}
    if isinstance(error := said.get("error"), Mapping):
        raise _raised(error)
    raise _died(status, options)


def _raised(error: Mapping[str, Any]) -> ModelyardError:
    """The child's refusal as an exception of this process; anything but a refusal of a model becomes one."""
    code = str(error.get("code"))
    family = CODES.get(code)
    message = str(error.get("message"))
    if family is not PublishError:
        return PublishError("warm_up_failed", message, reason=code)
    detail = error.get("detail")
    return PublishError(code, message, **(dict(detail) if isinstance(detail, Mapping) else {}))


def _died(status: int, options: CheckOptions) -> PublishError:
    if status == -signal.SIGXCPU:
        return _too_slow(options.timeout_s)
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return PublishError(
        "model_unreadable",
        f"The model ended the process that checked it ({how}).",
        field="model",
        expected=f"a model that loads within {options.memory_bytes} bytes of memory",
        got=how,
    )


def _too_slow(timeout_s: float) -> PublishError:
    return PublishError(
        "publish_timeout",
        f"The model was not parsed, warmed and checked within {timeout_s:g} s.",
        field="models.publish_timeout_s",
        expected=f"{timeout_s:g} s",
    )
