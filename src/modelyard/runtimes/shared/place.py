"""Where workers and a shared process meet: a socket, a lock and a list of deaths in a private folder of the host."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from modelyard.core.errors import UnavailableError
from modelyard.runtimes.remote.model import DOWN_S, pause_after
from modelyard.runtimes.remote.process import Bounds

BACKLOG = 1024
CONNECT_WITHIN_S = 10.0
"""The kernel answers for a process that is busy; only with BACKLOG workers before this one would it not."""
LOCK_WITHIN_S = 10.0
"""Who holds the lock starts a process, or writes a few bytes; its death releases it."""
LOCK_POLL_S = 0.005
REMEMBERED = 64
"""So many deaths are known again when another worker sees them too."""


class Place:
    """One version's corner of the folder, which is made private (0700)."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._name = name

    def connect(self) -> socket.socket | None:
        """A connection to the process; None where none listens. OSError."""
        with self._short() as folder:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            channel.settimeout(CONNECT_WITHIN_S)
            try:
                channel.connect(f"{folder}/{self._name}.socket")
            except (FileNotFoundError, ConnectionRefusedError):
                channel.close()
                return None
            except BaseException:
                channel.close()
                raise
        return channel

    def listen(self) -> socket.socket:
        """A socket that listens where `connect` looks, in place of one that nobody listens on any more. For whoever
        holds the lock."""
        with self._short() as folder:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                with suppress(FileNotFoundError):
                    os.unlink(f"{folder}/{self._name}.socket")  # noqa: PTH108  # a path of a descriptor
                listener.bind(f"{folder}/{self._name}.socket")
                listener.listen(BACKLOG)
            except BaseException:
                listener.close()
                raise
        return listener

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One worker at a time; UnavailableError("model_not_ready") after LOCK_WITHIN_S."""
        descriptor = os.open(self._folder / f"{self._name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until_s = time.monotonic() + LOCK_WITHIN_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until_s:
                        raise UnavailableError(
                            "model_not_ready", "Another worker is busy with the model's process.", retry_after_s=1.0
                        ) from None
                    time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    @property
    def deaths(self) -> Path:
        """The file of DeathList."""
        return self._folder / f"{self._name}.deaths"

    @contextmanager
    def _short(self) -> Iterator[str]:
        """The folder's name through a descriptor: a socket's address has 108 bytes, a data folder's path may be
        longer."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)


def clear(folder: Path) -> None:
    """Forgets the processes of an earlier start; for the parent, before it starts a worker."""
    if folder.is_dir():
        for path in folder.iterdir():
            with suppress(OSError):
                path.unlink()


class Kept(msgspec.Struct, frozen=True):
    """Deaths, as incarnation and CLOCK_MONOTONIC seconds; those up to `forgiven_s` no longer count, and nothing is
    started before `down_until_s`."""

    deaths: tuple[tuple[str, float], ...] = ()
    forgiven_s: float = 0.0
    down_until_s: float = 0.0


class Noted(msgspec.Struct, frozen=True):
    """`first`: no other worker had noted this death. `guilty`: it is one too many."""

    first: bool
    guilty: bool


class DeathList:
    """How often a shared process died of late, counted once for all workers."""

    def __init__(self, place: Place, bounds: Bounds) -> None:
        self._place = place
        self._bounds = bounds

    def note(self, incarnation: str, now_s: float) -> Noted:
        """This incarnation is dead; UnavailableError as `Place.locked`."""
        with self._place.locked():
            kept = self._read()
            if any(known == incarnation for known, _ in kept.deaths):
                return Noted(False, False)
            deaths = (*kept.deaths, (incarnation, now_s))[-REMEMBERED:]
            guilty = self._recent(deaths, kept.forgiven_s, now_s) >= self._bounds.deaths
            # Whoever revives the version later begins anew.
            self._write(Kept(deaths, now_s, now_s + DOWN_S) if guilty else msgspec.structs.replace(kept, deaths=deaths))
        return Noted(True, guilty)

    def pause_s(self, now_s: float) -> float | None:
        """How long to wait before the next start; None: not now."""
        kept = self._read()
        if now_s < kept.down_until_s:
            return None
        return pause_after(self._recent(kept.deaths, kept.forgiven_s, now_s))

    def _recent(self, deaths: tuple[tuple[str, float], ...], forgiven_s: float, now_s: float) -> int:
        return sum(at > forgiven_s and now_s - at < self._bounds.within_s for _, at in deaths)

    def _read(self) -> Kept:
        try:
            return msgspec.json.decode(self._place.deaths.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return Kept()

    def _write(self, kept: Kept) -> None:
        fresh = self._place.deaths.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(kept))
        fresh.replace(self._place.deaths)
