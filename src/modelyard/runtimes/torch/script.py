"""TorchScript archives (`torch.jit.save`).

TorchScript cannot reach beyond itself, but its operators believe the sizes and indices that they are given, and PyTorch
takes it for a program. So PyTorch meets the archive in a jail alone (docs/decisions/0020): this side reads its source,
and asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelyard.core.errors import PublishError
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.models.report import SignatureCompletion
from modelyard.runtimes.jail.formats import told_signature
from modelyard.runtimes.jail.model import JailedModel
from modelyard.runtimes.jail.process import JailBounds, What
from modelyard.runtimes.refusals import extra_missing, nonempty, only_one
from modelyard.runtimes.torch.archive import kind_of
from modelyard.runtimes.torch.script_file import checked_members

MAX_BYTES = 8 * 1024**3


class TorchscriptRuntime:
    """The port `models.ports.Runtime` for TorchScript."""

    format = "torchscript"

    def detect(self, folder: Path) -> str | None:
        """The one TorchScript archive, cut off or not; a checkpoint counts too, so that its refusal can say so."""
        return only_one("PyTorch", folder, lambda path: kind_of(path) in ("script", "checkpoint"))

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """The owner's signature, with outputs found by a run in a jail; PublishError."""
        path = nonempty(folder / entry)
        if kind_of(path) == "checkpoint":
            raise PublishError(
                "format_not_allowed",
                f"`{path.name}` is a checkpoint of `torch.save`, a pickle: loading it would run its code. Save the "
                "model with `torch.export.save` or `torch.jit.save`.",
                field="model",
                got="pickle",
            )
        _check_installed()
        checked_members(path, int(options.get("max_version_bytes", MAX_BYTES)))
        bounds = JailBounds.of(options)
        what = What(folder, entry, self.format, {"threads": bounds.threads, "inputs": told(options)})
        return Inspection(self.format, entry, told_signature(what, bounds)[0], {}, ".pt")

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> JailedModel:
        """The module in its jail, with `options["threads"]` threads; PublishError."""
        nonempty(folder / manifest.entry)
        _check_installed()
        bounds = JailBounds.of(options)
        what = What(folder, manifest.entry, self.format, {"threads": bounds.threads})
        return JailedModel(what, bounds, manifest)


def _check_installed() -> None:
    if find_spec("torch") is None:
        raise extra_missing("PyTorch", "torch")


def told(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Names, datatypes and shapes of the inputs as the owner states them, or as his example has them: there the first
    dimension is the batch."""
    completion = options.get("signature") or SignatureCompletion()
    stated = [
        {"name": each.name, "datatype": each.datatype, "shape": each.shape}
        for each in completion.inputs
        if each.datatype is not None and each.shape is not None
    ]
    example = (options.get("example") or {}).get("inputs", ())
    return stated or [
        {"name": str(each["name"]), "datatype": str(each["datatype"]), "shape": [-1, *map(int, each["shape"][1:])]}
        for each in example
    ]
