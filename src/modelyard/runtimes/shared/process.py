"""A shared process as one worker sees it: found or started, attached to, spoken with, and killed when it hangs."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import msgspec

from modelyard.core.errors import CODES, ModelError, ModelyardError
from modelyard.runtimes.child import clean_environment
from modelyard.runtimes.remote.area import Area
from modelyard.runtimes.remote.process import RemoteProcess, garbled
from modelyard.runtimes.remote.wire import Failed, Loaded, frame
from modelyard.runtimes.shared.place import Place
from modelyard.runtimes.shared.words import Attach, Hello, Hosted, Refused, Said

MODULE = "modelyard.runtimes.shared.host"
KILLED_S = 10.0
"""How long the kernel may take to free a large process."""


class SharedProcess(RemoteProcess):
    """A connection to a process that other workers use too. `incarnation` is "" until it said hello."""

    replies: ClassVar[Any] = Said

    def __init__(self, channel: socket.socket, area: Area) -> None:
        super().__init__(channel, area)
        self.incarnation = ""
        self.before_kill: Callable[[], object] = lambda: None
        """Called before the others can see its end: whoever ends it says why."""
        self._pid = 0
        self._pidfd = -1

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._pid

    def attach(self, timeout_s: float) -> Refused | None:
        """Returns once the model is loaded, or was refused. ModelError as `hear`."""
        hello = self.hear(timeout_s)
        if not isinstance(hello, Hello):
            raise self.end(garbled("something before its name"))
        self._pid, self.incarnation = hello.pid, hello.incarnation
        try:
            self._pidfd = os.pidfd_open(hello.pid)
        except ProcessLookupError:
            raise self._ended() from None
        # An answer from here on proves that the number was not another's by then.
        with suppress(BrokenPipeError, ConnectionResetError):  # what is read next says how it ended
            socket.send_fds(self._socket, [frame(Attach(self._area.half_bytes))], [self._area.descriptor])
        self._area.handed_over()
        said = self.hear(timeout_s)
        if isinstance(said, Refused):
            return said
        if not isinstance(said, Loaded):
            raise self.end(garbled("no answer to the order to load"))
        return None

    def ended_within(self, timeout_s: float) -> bool:
        """Whether it closed its channel, waited for; also true once this side did."""
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLRDHUP)
        except ValueError:
            return True
        return bool(poll.poll(timeout_s * 1000))

    def look(self) -> ModelError:
        """How it ended."""
        return self._ended()

    def kill(self) -> None:
        """SIGKILL, for all workers, and waits for the end: its successor must find the memory free."""
        if self._pidfd >= 0:
            self.before_kill()
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(KILLED_S * 1000)
        self.leave()

    def leave(self) -> None:
        """Closes the connection; the process lives as long as another worker has one."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._let_go()

    def _ended(self) -> ModelError:
        """Nobody but its parent learns how, and that may be another worker."""
        self.leave()
        return ModelError("model_crashed", "The model's process, which all workers share, was ended.")


def error_of(failed: Failed) -> ModelyardError:
    """The error as it was raised there: that side is ours."""
    family = CODES.get(failed.code, ModelError)
    code = failed.code if failed.code in family.codes else "model_failed"
    return family(code, failed.message, **(failed.detail if isinstance(failed, Refused) else {}))


def find_or_start(place: Place, hosted: Callable[[int], Hosted]) -> socket.socket:
    """A connection to the version's process, which is started where none listens: by one worker, whatever the others
    do. OSError."""
    channel = place.connect()
    if channel is not None:
        return channel
    with place.locked():
        channel = place.connect()
        if channel is not None:
            return channel
        with place.listen() as listener:
            start(hosted(listener.fileno()))
            channel = place.connect()
    if channel is None:
        raise FileNotFoundError("the socket of a process that has just been started")
    return channel


def start(hosted: Hosted) -> int:
    """Starts the process, which belongs to no worker; its number. What it is to do comes by stdin; its arguments tell
    whoever lists processes which server and which version it is."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE, str(hosted.server), hosted.manifest.digest()],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=clean_environment(int(hosted.options["threads"])),
        pass_fds=(hosted.listener,),
        start_new_session=True,
    )
    threading.Thread(target=child.wait, name="shared-reap", daemon=True).start()
    if child.stdin is not None:
        with suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(msgspec.json.encode(hosted))
    return child.pid
