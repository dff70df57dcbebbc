"""A data folder with all that works on it, in one process, that can be killed at once and opened again (Z5)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.auth.keys import KeyIssuer
from modelyard.auth.scopes import Scope
from modelyard.auth.table import KeyTable
from modelyard.core.clock import SystemClock
from modelyard.core.settings import JournalSettings, Settings
from modelyard.core.types import Signature
from modelyard.journal.drain import Drain
from modelyard.journal.frame import encode_frame
from modelyard.journal.ids import PredictionIds, new_epoch
from modelyard.journal.ports import RecordSink, SpoolPosition, StoredBatch
from modelyard.journal.record import PredictionRecord
from modelyard.journal.spool import SpoolWriter
from modelyard.models.ports import Version
from modelyard.routing.table import RoutingTable
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores
from modelyard.testing import StubModel, prediction_record, servable, version_folder
from modelyard.testing.builders import T0


class KilledError(BaseException):
    """The process ends here: nothing that catches exceptions may go on."""


class DyingSink:
    """The real sink until its `calls`-th store or forget, before or after which the drain dies."""

    def __init__(self, sink: RecordSink, calls: int, after: bool) -> None:
        self._sink = sink
        self._left = calls
        self._after = after

    def store(self, records: list[PredictionRecord], position: SpoolPosition) -> StoredBatch:
        """Stores a batch, or dies."""
        stored: StoredBatch = self._dying(lambda: self._sink.store(records, position))
        return stored

    def forget(self, file: str) -> None:
        """Drops a position, or dies."""
        self._dying(lambda: self._sink.forget(file))

    def position(self, file: str) -> int:
        """The real sink's."""
        return self._sink.position(file)

    def signature(self, manifest: str) -> Signature | None:
        """The real sink's."""
        return self._sink.signature(manifest)

    def _dying(self, call: Callable[[], Any]) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise KilledError
        done = call()
        if self._left == 0:
            raise KilledError
        return done


class Yard:
    """Stores, spool writer and tables over `data`. What a kill leaves open is closed by `end` alone."""

    journal = JournalSettings(max_file_bytes=4096, drain_batch=3)

    def __init__(self, data: Path) -> None:
        self.data = data
        self._abandoned: list[Stores] = []
        self._open()

    def _open(self) -> None:
        self.stores = open_stores(Settings(data=self.data), self.data)
        self._tables: tuple[int, KeyTable, RoutingTable] | None = None
        self._start_worker()

    def _start_worker(self) -> None:
        epoch = new_epoch()
        self._ids = PredictionIds(epoch)
        self._writer = SpoolWriter(self.data / "spool", epoch, self.journal, SystemClock())

    def kill(self, torn: int = 0) -> None:
        """Everything ends without a word, `torn` bytes into writing a turn; then all is opened again on the folder."""
        self._kill_worker(torn)
        self._abandoned.append(self.stores)
        self._open()

    def kill_worker(self, torn: int) -> None:
        """The worker alone ends so."""
        self._kill_worker(torn)
        self._start_worker()

    def _kill_worker(self, torn: int) -> None:
        if self._writer._fd >= 0:
            turn = b"".join(encode_frame(prediction_record(self._ids.next()).header, b"never answered", b"{}"))
            os.write(self._writer._fd, turn[:torn])
            os.close(self._writer._fd)  # as the kernel does

    def end(self) -> None:
        """Gives everything back."""
        self._kill_worker(0)
        for stores in (*self._abandoned, self.stores):
            stores.close()

    def publish(self, model: str, name: str, k: float, dies: bool) -> bool:
        """Artifact, then row, as the publisher does; `dies` between them. Whether it is new; ConflictError."""
        with tempfile.TemporaryDirectory(dir=self.data.parent) as folder:
            manifest = version_folder(Path(folder), {"stub.json": json.dumps({"k": k}).encode()})
            self.stores.artifacts.put(manifest.digest(), Path(folder))
        if dies:
            self.kill()
            return False
        return self.stores.registry.add_version(Version(model, name, manifest.digest(), manifest, T0))

    def issue(self) -> tuple[str, str]:
        """A new key's text and id."""
        issued = KeyIssuer(self.stores.keys, SystemClock()).create("acme", scopes=(Scope.PREDICT,))
        return issued.text.get_secret_value(), issued.key.id

    def k_of(self, digest: str) -> float:
        """The factor that the stored artifact holds."""
        return float(json.loads((self.stores.artifacts.open(digest) / "stub.json").read_text())["k"])

    def follow(self) -> tuple[KeyTable, RoutingTable]:
        """The tables, read anew only if the snapshot version says so, as a worker does."""
        version = self.stores.keys.version()
        if self._tables is None or self._tables[0] != version:
            published = self.stores.registry.versions()
            loaded = {
                (one.model, one.version): servable(StubModel(self.k_of(one.digest)), one.model, one.version)
                for one in published
            }
            table = RoutingTable(version, self.stores.endpoints.endpoints(), loaded)
            self._tables = version, KeyTable(self.stores.keys.snapshot()), table
        return self._tables[1:]

    def predict(self, key: str, model: str, subjects: list[str], x: int) -> dict[str, tuple[str, str, float]]:
        """One turn of requests: ids with subject, version and answer, after their one write to the spool.
        AuthenticationError, NotFoundError."""
        keys, table = self.follow()
        caller = keys.authenticate(key.encode(), SystemClock().now())
        caller.require(Scope.PREDICT, model)
        parts: list[bytes] = []
        answers = {}
        for subject in subjects:
            route, one = table.route(model, None, subject), self._ids.next()
            used = route.servable
            y = float(used.loaded.run({"x": np.array([[x, x]], np.float32)}, ())["y"][0, 0])
            digest = self.stores.registry.version(model, used.version).digest
            record = prediction_record(
                one, model=model, endpoint=model, version=used.version, arm=route.arm, manifest=digest,
                subject=subject, key_id=caller.key_id,
            )  # fmt: skip
            parts += encode_frame(record.header, _tensor("inputs", "x", x), _tensor("outputs", "y", y))
            answers[one] = subject, used.version, y
        self._writer.append(parts)
        return answers

    def rotate(self) -> None:
        """The worker lets go of its file."""
        self._writer.close()

    def drain(self, calls: int = 0, after: bool = False) -> bool:
        """A drain of its own until nothing waits; with `calls`, dead at that call of its sink. Whether it lived."""
        sink: Any = DyingSink(self.stores.sink, calls, after) if calls else self.stores.sink
        drain = Drain(self.data / "spool", sink, None, self.journal, SystemClock())
        try:
            while (report := drain.step()).records:
                assert not report.failed
            return True
        except KilledError:
            return False
        finally:
            drain.close()  # the kernel lets go of a dead drain's lock


def _tensor(key: str, name: str, value: float) -> bytes:
    tensor = {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [value, value]}
    return json.dumps({key: [tensor]}).encode()
