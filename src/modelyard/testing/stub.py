"""A model whose arithmetic is known: y = x · k."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import ModelError, PublishError
from modelyard.core.types import DATATYPES, Array, Signature, Tensors
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.testing.builders import signature as default_signature

STUB_FILE = "stub.json"
"""The file that StubRuntime knows its models by: `{"k": 2.0, "columns": ["a", "b"]}`."""


class StubModel:
    """core.types.LoadedModel: every output is the first input times `k`, in the output's datatype.

    `before_run` is called with the inputs before each run: let it wait on a test's event, turn a FakeClock, or raise.
    `fails_when` decides per run whether it fails as a model does (ModelError("model_failed")). `calls` lists the rows
    of each run, `closed` says whether `close` was called.
    """

    def __init__(
        self,
        k: float = 2.0,
        signature: Signature | None = None,
        before_run: Callable[[Tensors], None] | None = None,
        fails_when: Callable[[Tensors], bool] | None = None,
    ) -> None:
        self.k = k
        self.signature = signature or default_signature()
        self.before_run = before_run
        self.fails_when = fails_when
        self.calls: list[int] = []
        self.closed = False

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs (all, if empty) for the inputs."""
        if self.closed:
            raise ModelError("model_failed", "The model is no longer in memory.")
        x = next(iter(inputs.values()))
        self.calls.append(len(x) if x.ndim else 1)
        if self.before_run is not None:
            self.before_run(inputs)
        if self.fails_when is not None and self.fails_when(inputs):
            raise ModelError("model_failed", "The stub was told to fail.")
        return {
            spec.name: np.asarray(x * self.k, dtype=DATATYPES[spec.datatype])
            for spec in self.signature.outputs
            if not outputs or spec.name in outputs
        }

    def compact(self, inputs: Tensors) -> None:
        """Keeps nothing."""

    def close(self) -> None:
        """Marks it closed."""
        self.closed = True


class StubRuntime:
    """models.ports.Runtime for folders with a STUB_FILE."""

    format = "stub"

    def detect(self, folder: Path) -> str | None:
        """STUB_FILE if it is there."""
        return STUB_FILE if (folder / STUB_FILE).is_file() else None

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """The signature: as many inputs as there are columns; PublishError("model_unreadable")."""
        content = self._read(folder, entry)
        columns = tuple(map(str, content.get("columns", ("a", "b"))))
        digest = hashlib.sha256((folder / entry).read_bytes()).hexdigest()
        return Inspection(self.format, entry, default_signature(columns), {"stub_sha256": digest})

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> StubModel:
        """The model; PublishError("model_unreadable")."""
        return StubModel(float(self._read(folder, manifest.entry)["k"]), manifest.signature)

    def _read(self, folder: Path, entry: str) -> dict[str, Any]:
        try:
            content = json.loads((folder / entry).read_bytes())
            float(content["k"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PublishError("model_unreadable", "The stub cannot be read.", field=entry) from error
        return dict(content)
