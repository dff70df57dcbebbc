"""A model in a shared process, as one worker sees it: core.types.LoadedModel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from modelyard.core.errors import ModelError, ModelyardError, PublishError, UnavailableError
from modelyard.core.types import Array, Tensors
from modelyard.runtimes.remote.area import Area
from modelyard.runtimes.remote.model import EARLIER, RemoteModel
from modelyard.runtimes.remote.process import Bounds
from modelyard.runtimes.remote.wire import Answer, Failed, WrongTensorError, take
from modelyard.runtimes.shared.place import DeathList, Noted, Place
from modelyard.runtimes.shared.process import SharedProcess, error_of, find_or_start
from modelyard.runtimes.shared.words import Compact, Hosted

TRIES = 3
"""So often a process may end before it says hello: one that was about to leave is no failure."""
RETRY_S = 1.0
"""A version that could not be loaded again is tried again after this long."""
WATCH_S = 0.5


class SharedModel(RemoteModel[SharedProcess]):
    """core.types.LoadedModel whose process serves other workers too. Its deaths are counted once for all of them:
    `report_deaths` (models.ports.ReportsDeaths)."""

    def __init__(self, place: Place, hosted: Hosted, bounds: Bounds) -> None:
        self._place = place
        self._hosted = hosted
        self._deaths = DeathList(place, bounds)
        self._report: Callable[[str, bool], None] = lambda code, guilty: None
        self._noted: tuple[SharedProcess, Noted] | None = None
        self._retry_s = 0.0
        super().__init__(hosted.manifest.signature, bounds)
        threading.Thread(target=self._watch, name="shared-watch", daemon=True).start()

    def report_deaths(self, report: Callable[[str, bool], None]) -> None:
        """See the port."""
        self._report = report

    def compact(self, inputs: Tensors) -> None:
        """See the port: the process compacts, and the shared memory's pages go back."""
        with self._lock:
            process = self._living()
            try:
                order = Compact(self._next(), self._placed(process, inputs))
                process.ask(order, self._bounds.run_s * EARLIER)
            except ModelyardError as error:
                if process.gone:
                    self._lost(error)
                raise
            process.give_back(2 * self._bounds.tensor_bytes)

    def _open(self) -> SharedProcess:
        until_s = time.monotonic() + self._bounds.load_s
        for _ in range(TRIES):
            process = self._connected()
            try:
                refused = process.attach(max(0.1, until_s - time.monotonic()))
            except ModelError as error:
                if process.incarnation:
                    raise self._died_loading(process, error) from None
                continue
            if refused is None:
                return process
            process.leave()
            raise error_of(refused)
        raise PublishError("warm_up_failed", "The model's process does not start.", field="model")

    def _died_loading(self, process: SharedProcess, error: ModelError) -> PublishError:
        self._note(process)
        said = f"The model could not be loaded: {error.message}"
        return PublishError("warm_up_failed", said, field="model", reason=error.code)

    def _connected(self) -> SharedProcess:
        area = Area("modelyard-shared", self._bounds.tensor_bytes)
        try:
            channel = find_or_start(self._place, lambda fd: msgspec.structs.replace(self._hosted, listener=fd))
        except OSError as error:
            area.close()
            raise PublishError(
                "warm_up_failed", f"The model's process cannot be reached or started: {error.strerror}", field="model"
            ) from None
        except BaseException:
            area.close()
            raise
        process = SharedProcess(channel, area)
        process.before_kill = partial(self._note, process)
        return process

    def _note_death(self, process: SharedProcess | None, error: ModelyardError | None) -> None:
        self._retry_s = RETRY_S if process is None else 0.0
        if process is None or error is None:
            return
        noted = self._note(process)
        if noted.first:
            self._report(error.code, noted.guilty)

    def _note(self, process: SharedProcess) -> Noted:
        """What its death means; the first answer for a process stays, since it is asked before and after a kill."""
        if self._noted is None or self._noted[0] is not process:
            try:
                noted = self._deaths.note(process.incarnation, time.monotonic())
            except (UnavailableError, OSError):
                noted = Noted(True, False)  # rather counted twice than never
            self._noted = process, noted
        return self._noted[1]

    def _pause_s(self) -> float | None:
        pause_s = self._deaths.pause_s(time.monotonic())
        return None if pause_s is None else max(pause_s, self._retry_s)

    def _failure(self, failed: Failed) -> ModelyardError:
        return error_of(failed)

    def _taken(
        self, process: SharedProcess, answer: Answer, wanted: tuple[str, ...], inputs: Tensors
    ) -> dict[str, Array]:
        try:
            return {placed.name: take(placed, process.answered) for placed in answer.outputs}
        except WrongTensorError as error:
            raise process.end(ModelError("reply_mismatched", f"The model's process gave {error}.")) from None

    def _watch(self) -> None:
        """Sees the end of an idle process, so that it is back before it is needed."""
        while not self._closed:
            process = self._process
            if process is None:
                time.sleep(WATCH_S)
            elif process.ended_within(WATCH_S):
                with self._lock:
                    if self._process is process and not process.gone:
                        self._lost(process.look())
