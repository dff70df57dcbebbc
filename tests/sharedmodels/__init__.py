"""Models that several workers share in the tests: a folder of a version, and models that meet in one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelyard.core.errors import ModelyardError
from modelyard.core.settings import load_settings
from modelyard.core.types import Array
from modelyard.models.manifest import Manifest
from modelyard.models.report import jail_bounds
from modelyard.models.stage import hash_folder
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.remote.process import Bounds
from modelyard.runtimes.shared.model import SharedModel
from modelyard.runtimes.shared.runtime import Meeting, SharedRuntimes

BACK_WITHIN_S = 30.0
FLAGS: dict[str, Any] = {
    "workers": 2, "models.shared_from_bytes": 1, "models.jail_tensor_bytes": 4 * 1024**2, "models.max_run_s": 2,
}  # fmt: skip


def doubling(folder: Path) -> tuple[Path, Manifest]:
    """An ONNX model: `y` is twice `x`, after a sum over as many ones as `elements` says (4 bytes each)."""
    import onnx
    from onnx import TensorProto, helper

    ones = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    none = helper.make_tensor("none", TensorProto.FLOAT, [1], [0.0])
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["elements"], ["many"], value=ones),
        helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "none"], ["nothing"]),
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("Add", ["twice", "nothing"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("elements", TensorProto.INT64, [1]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "doubling", inputs, outputs, [none, two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return folder, manifest_of("onnx", folder)


def manifest_of(form: str, folder: Path, **options: Any) -> Manifest:
    """What is known of the one file in a folder."""
    runtime = RUNTIMES[form]
    entry = str(runtime.detect(folder))
    found = runtime.inspect(folder, entry, options)
    return Manifest(form, entry, tuple(hash_folder(folder, 10**9)), found.signature)


def shared(
    version: tuple[Path, Manifest], run: Path, server: int = 0, linger_s: float = 10.0, **flags: Any
) -> SharedModel:
    """The version as one worker has it; those with the same `run` meet. `server` is this process by default."""
    folder, manifest = version
    settings = load_settings(**{**FLAGS, **flags})
    options = {
        "threads": 1,
        "trusted_types": settings.models.trusted_types,
        "max_version_bytes": settings.models.max_version_bytes,
        "jail": jail_bounds(settings.models),
    }
    runtimes = SharedRuntimes(RUNTIMES, settings, Meeting(run, 2, server or os.getpid(), linger_s))
    loaded = runtimes[manifest.format].load(folder, manifest, options)
    assert isinstance(loaded, SharedModel)
    return loaded


def ask(loaded: SharedModel, value: float, elements: int = 1) -> str:
    """The code of what comes of a run; "" if it is the right answer."""
    given: Array = np.full((3, 2), value, np.float32)
    try:
        found = loaded.run({"x": given, "elements": np.array([elements])}, ())
    except ModelyardError as error:
        return error.code
    np.testing.assert_array_equal(found["y"], given * 2)
    return ""


def back(*models: SharedModel) -> None:
    """Waits until all of them answer, out of one process."""
    until_s = time.monotonic() + BACK_WITHIN_S
    for loaded in models:
        while (code := ask(loaded, 1)) == "model_not_ready":
            assert time.monotonic() < until_s, "it did not come back"
            time.sleep(0.02)
        assert code == ""
    assert len({loaded.pid for loaded in models}) == 1


def until(condition: Callable[[], Any], what: str, within_s: float = 10.0) -> None:
    """Waits for it."""
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, what
        time.sleep(0.01)


def lives(pid: int | None) -> bool:
    """Whether a process runs, and is no mere entry in the table."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def beside(call: Callable[[], str], found: list[str]) -> threading.Thread:
    """A call in a thread of its own, its answer in `found`."""
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread


def bounded(**changes: Any) -> Bounds:
    """The bounds of these tests."""
    return msgspec.structs.replace(Bounds.of({"jail": jail_bounds(load_settings(**FLAGS).models)}), **changes)
