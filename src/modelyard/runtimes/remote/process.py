"""Another process that runs models, as this one sees it: spoken with under deadlines, ended for what it does wrong."""

from __future__ import annotations

import select
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import msgspec

from modelyard.core.errors import ModelError
from modelyard.runtimes.remote.area import Area
from modelyard.runtimes.remote.wire import LENGTH, MAX_FRAME_BYTES, Reply, frame

READ_BYTES = 65_536

BoundsType = TypeVar("BoundsType", bound="Bounds")


class Bounds(msgspec.Struct, frozen=True):
    """What a process that runs a model may use. `tensor_bytes`: inputs of one run, and outputs likewise; `load_s`: from
    the start of the process to the loaded model; `deaths` within `within_s`: then it is not started for a while."""

    memory_bytes: int = 2 * 1024**3
    tensor_bytes: int = 128 * 1024**2
    run_s: float = 60.0
    load_s: float = 120.0
    threads: int = 1
    deaths: int = 5
    within_s: float = 60.0

    @classmethod
    def of(cls: type[BoundsType], options: Mapping[str, Any]) -> BoundsType:
        """Those of a runtime's options: `jail` (`models.report.jail_bounds`), and `threads` beside it."""
        return cls(**{**options.get("jail", {}), "threads": int(options.get("threads", 1))})


class RemoteProcess(ABC):
    """One thread at a time may speak with it. Every error but a model's own has ended it, for this side at least."""

    replies: ClassVar[Any] = Reply
    """The forms of what it may say."""

    def __init__(self, channel: socket.socket, area: Area) -> None:
        self._socket = channel
        self._area = area
        self.given, self.answered = area.given, area.answered
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    @property
    @abstractmethod
    def pid(self) -> int:
        """Its process number."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL, and lets go of it. A second call does nothing."""

    @abstractmethod
    def leave(self) -> None:
        """It is no longer needed here. A second call does nothing."""

    @abstractmethod
    def _ended(self) -> ModelError:
        """The channel is closed: how did it end?"""

    @property
    def gone(self) -> bool:
        """Whether it was ended, or left."""
        return self._socket.fileno() < 0

    def ask(self, order: msgspec.Struct, timeout_s: float) -> msgspec.Struct:
        """Sends an order, and the answer to it; ModelError as `hear`, and ("reply_repeated") if something came that
        nobody had asked for."""
        self._check_silent()
        with suppress(BrokenPipeError, ConnectionResetError):  # what is read next says how it ended
            self._send(frame(order), timeout_s)
        reply = self.hear(timeout_s)
        self._check_silent()
        return reply

    def hear(self, timeout_s: float) -> msgspec.Struct:
        """One frame. ModelError: as `_ended` says, model_timeout, reply_garbled; the process is dead then."""
        until_s = time.monotonic() + timeout_s
        size = LENGTH.unpack(self._read(LENGTH.size, until_s, timeout_s))[0]
        if size > MAX_FRAME_BYTES:
            raise self.end(garbled(f"a frame of {size} bytes"))
        body = self._read(size, until_s, timeout_s)
        try:
            reply: msgspec.Struct = msgspec.msgpack.decode(body, type=self.replies)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self.end(garbled("a frame that is no message")) from None
        return reply

    def end(self, error: ModelError) -> ModelError:
        """Kills the process for this reason."""
        self.kill()
        return error

    def give_back(self, used_bytes: int) -> None:
        """Frees the pages of the shared memory after a large run."""
        self._area.give_back(used_bytes)

    def _let_go(self) -> None:
        """Closes the channel and unmaps the memory."""
        self._socket.close()
        self._area.close()

    def _check_silent(self) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            if self._socket.recv(1, socket.MSG_PEEK):
                raise self.end(
                    ModelError("reply_repeated", "The model's process said more than one answer; it was ended.")
                )

    def _send(self, data: bytes, timeout_s: float) -> None:
        """Orders are small; a process that does not read them is stopped, or will not answer either."""
        view = memoryview(data)
        until_s = time.monotonic() + timeout_s
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise self.end(too_slow(timeout_s)) from None
                room = select.poll()
                room.register(self._socket, select.POLLOUT)
                room.poll(100)

    def _read(self, size: int, until_s: float, timeout_s: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            left_s = until_s - time.monotonic()
            if left_s <= 0:  # before each piece: of one that drips there is always another
                raise self.end(too_slow(timeout_s))
            try:
                part = self._socket.recv(min(size - len(parts), READ_BYTES))
            except BlockingIOError:
                self._poll.poll(left_s * 1000 + 1)
                continue
            except ConnectionResetError:
                part = b""
            if not part:
                raise self._ended()
            parts += part
        return bytes(parts)


def garbled(what: str) -> ModelError:
    """The process said something that is none of the forms."""
    return ModelError("reply_garbled", f"The model's process said {what}; it was ended.")


def too_slow(timeout_s: float) -> ModelError:
    """It did not answer in time: it loops, is stopped, or holds its interpreter's lock; nobody outside can tell."""
    return ModelError(
        "model_timeout", f"The model did not answer within {timeout_s:g} s; its process was ended.",
        field="models.max_run_s",
    )  # fmt: skip
