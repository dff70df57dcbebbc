"""Which version did it? Workers note what they run, the parent counts in whose run workers died, and what was found
unhealthy is kept in the data folder until somebody revives it (promise P11)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock
from modelyard.core.errors import ModelError
from modelyard.core.events import Event
from modelyard.core.types import Array, LoadedModel, Signature, Tensors
from modelyard.models.ports import ReportsDeaths
from modelyard.telemetry.logs import emit

HUNG_COUNTS = 2
"""A worker that hung cost its callers ten seconds before anybody saw it: that weighs as much as two deaths."""
UNDECIDED_FACTOR = 2
"""Versions that were running in equally many deaths are told apart by further ones; after so many times the bound,
all of them are called unhealthy."""

PROCESS_DEATHS = frozenset({
    "model_exited", "model_crashed", "model_hung_up", "model_timeout", "reply_garbled", "reply_repeated",
    "reply_mismatched",
})  # fmt: skip
"""Codes of a jailed model's run after which its process is gone (runtimes/jail)."""

Key = tuple[str, str]


def version_token(model: str, version: str) -> int:
    """The word that stands for a version on the board: 64 bits of BLAKE2b over both names, never 0."""
    return int.from_bytes(blake2b(f"{model}\0{version}".encode(), digest_size=8).digest(), "little") or 1


class RunNotes:
    """What this process runs now. Made on the loop's thread, which has the first word for itself; every other thread
    takes a free one for the length of its run (models.ports.Health)."""

    def __init__(self, words: memoryview, unhealthy: UnhealthyVersions, clock: Clock) -> None:
        self._words = words
        self._unhealthy = unhealthy
        self._clock = clock
        self._suspects = Suspects(5, 60.0)
        self._suspecting = threading.Lock()
        self._on_unhealthy: Callable[[int], None] = lambda token: None
        self._loop = threading.get_ident()
        self._free = list(range(1, len(words)))
        self._since = [0.0] * len(words)

    def watched(self, model: str, version: str, loaded: LoadedModel) -> LoadedModel:
        """The same model, noted while it runs."""
        return WatchedModel(loaded, (model, version), self)

    def judge(self, suspects: Suspects, on_unhealthy: Callable[[int], None]) -> None:
        """From now on `suspects` counts the deaths of jailed models' processes; `on_unhealthy` is called with the token
        of one that is guilty, in the thread of its run."""
        self._suspects, self._on_unhealthy = suspects, on_unhealthy

    def died(self, key: Key, code: str) -> None:
        """A jailed model's process ended in its run; this worker lives on."""
        emit(Event.MODEL_PROCESS_LOST, "error", model=key[0], version=key[1], code=code)
        token = version_token(*key)
        with self._suspecting:
            guilty = self._suspects.note(frozenset((token,)), self._clock.monotonic())
        if token in guilty:
            self._on_unhealthy(token)

    def shared_died(self, key: Key, code: str, guilty: bool) -> None:
        """A process that all workers share ended, and this worker saw it first; `guilty`: one time too many."""
        emit(Event.MODEL_PROCESS_LOST, "error", model=key[0], version=key[1], code=code)
        if guilty:
            self._on_unhealthy(version_token(*key))

    @contextmanager
    def loading(self, model: str, version: str) -> Iterator[None]:
        """Notes a version while it is loaded and checked, for however long that takes."""
        place = self._take(version_token(model, version))
        try:
            yield
        finally:
            self._give(place)

    def is_unhealthy(self, model: str, version: str) -> bool:
        """Whether it must not be loaded."""
        return version_token(model, version) in self._unhealthy.tokens()

    def longest_run_s(self) -> float:
        """How long the oldest run off the loop has lasted."""
        begun = [since for since in self._since if since]
        return self._clock.monotonic() - min(begun) if begun else 0.0

    def run(self, loaded: LoadedModel, token: int, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """Runs the model, noted."""
        words = self._words
        if threading.get_ident() == self._loop:
            words[0] = token
            try:
                return loaded.run(inputs, outputs)
            finally:
                words[0] = 0
        place = self._take(token)
        self._since[place] = self._clock.monotonic() if place else 0.0
        try:
            return loaded.run(inputs, outputs)
        finally:
            self._since[place] = 0.0
            self._give(place)

    def _take(self, token: int) -> int:
        """A free word; 0 where all are taken, or for the loop's own: then nothing is noted."""
        try:
            place = self._free.pop()  # atomic, as is append
        except IndexError:
            return 0
        self._words[place] = token
        return place

    def _give(self, place: int) -> None:
        if place:
            self._words[place] = 0
            self._free.append(place)


class WatchedModel:
    """A loaded model whose runs are noted on the board; everything else is the model's own."""

    __slots__ = ("_counted", "_key", "_loaded", "_notes", "_token", "signature")

    def __init__(self, loaded: LoadedModel, key: Key, notes: RunNotes) -> None:
        self.signature: Signature = loaded.signature
        self._loaded = loaded
        self._key = key
        self._token = version_token(*key)
        self._notes = notes
        self._counted = not isinstance(loaded, ReportsDeaths)
        if isinstance(loaded, ReportsDeaths):
            loaded.report_deaths(partial(notes.shared_died, key))

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """As the model runs."""
        try:
            return self._notes.run(self._loaded, self._token, inputs, outputs)
        except ModelError as error:
            if self._counted and error.code in PROCESS_DEATHS:
                self._notes.died(self._key, error.code)
            raise

    def compact(self, inputs: Tensors) -> None:
        """As the model compacts."""
        self._loaded.compact(inputs)

    def close(self) -> None:
        """As the model closes."""
        self._loaded.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)


class Suspects:
    """Counts, by version, the workers that died in its run. A version is found guilty once `deaths` of them died
    within `within_s`, and no other version was running in as many."""

    def __init__(self, deaths: int, within_s: float) -> None:
        self._deaths = deaths
        self._within_s = within_s
        self._seen: dict[int, list[float]] = {}

    def note(self, running: frozenset[int], now_s: float, counts: int = 1) -> list[int]:
        """A worker died while these ran; the versions that are guilty now. They start anew."""
        for token in running:
            self._seen.setdefault(token, []).extend([now_s] * counts)
        self._seen = {
            token: kept
            for token, times in self._seen.items()
            if (kept := [at for at in times if now_s - at <= self._within_s])
        }
        most = max((len(times) for times in self._seen.values()), default=0)
        worst = [token for token, times in self._seen.items() if len(times) == most]
        if most < self._deaths or (len(worst) > 1 and most < UNDECIDED_FACTOR * self._deaths):
            return []
        for token in worst:
            del self._seen[token]
        return worst


class UnhealthyVersions:
    """One small file a version, named by its token, so that nobody who marks or revives needs a lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mark(self, token: int, model: str, version: str, deaths: int, at: float) -> None:
        """The version is not loaded again until it is revived; `at` in UNIX seconds. OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f".{token:016x}"
        fresh.write_text(json.dumps({"model": model, "version": version, "deaths": deaths, "at": at}))
        fresh.replace(self._folder / f"{token:016x}")

    def revive(self, model: str, version: str) -> bool:
        """Takes the mark away; False if there was none."""
        try:
            (self._folder / f"{version_token(model, version):016x}").unlink()
        except FileNotFoundError:
            return False
        return True

    def tokens(self) -> frozenset[int]:
        """What is marked now."""
        with suppress(OSError):
            return frozenset(int(path.name, 16) for path in self._folder.iterdir() if not path.name.startswith("."))
        return frozenset()

    def among(self, versions: Iterator[Key] | Sequence[Key]) -> frozenset[Key]:
        """Which of these are marked."""
        marked = self.tokens()
        return frozenset(key for key in versions if version_token(*key) in marked) if marked else frozenset()
