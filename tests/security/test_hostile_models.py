"""Hostile models (F10, S9, S10, P8): refused with a code, nothing left, no server hurt, no pickle ever loaded."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.core.clock import SystemClock
from modelyard.core.errors import CODES, PublishError
from modelyard.core.settings import load_settings
from modelyard.models.catalog import Catalog
from modelyard.models.publish import Publisher
from modelyard.models.report import CheckOptions
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.check import _answer, confine
from modelyard.runtimes.child import check_in_child
from modelyard.testing import MemoryArtifactStore, MemoryRegistry

TRUNCATIONS = 64
FLIPS = 200
CANARY = "canary"


class Hostage:
    """A publisher over fakes, and the folder it must leave as it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry, self.artifacts = MemoryRegistry(), MemoryArtifactStore()
        self.settings = load_settings(data=folder / "data")
        self.publisher = Publisher(self.registry, self.artifacts, self.settings, SystemClock(), check_in_child)
        (folder / CANARY).write_bytes(b"untouched")

    def refuse(self, source: Path, *codes: str, name: str = "tree") -> PublishError:
        """Publishes, expects one of these codes, and looks for anything left behind."""
        with pytest.raises(PublishError) as refused:
            self.publisher.publish(name, source)
        assert refused.value.code in codes
        assert self.registry.versions() == ()
        assert list((self.folder / "data" / "staging").iterdir()) == []
        assert (self.folder / CANARY).read_bytes() == b"untouched"
        assert str(self.folder) not in refused.value.message + json.dumps(dict(refused.value.detail))
        return refused.value


@pytest.fixture
def hostage(tmp_path: Path) -> Hostage:
    """A fresh one."""
    return Hostage(tmp_path)


@pytest.fixture(scope="module")
def forest() -> bytes:
    """A real model: breast cancer, ten trees, as skl2onnx exports it."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    rows, target = load_breast_cancer(return_X_y=True)
    fitted = RandomForestClassifier(10, random_state=0).fit(rows, target)
    return bytes(to_onnx(fitted, rows[:1].astype(np.float32), options={"zipmap": False}).SerializeToString())


@pytest.fixture
def no_pickle() -> Iterator[None]:
    """Any load of a pickle in this process (as the server's would be) fails the test, whoever does it."""
    loaders = ("load", "loads", "Unpickler")
    real = {name: getattr(pickle, name) for name in loaders}

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was loaded in the server's process")

    for name in loaders:
        setattr(pickle, name, refuse)
    yield
    for name, value in real.items():
        setattr(pickle, name, value)


class Gadget:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (exec, (f"open({self.canary!r}, 'w').write('ran')",))


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("m.onnx", 0), ("m.onnx", 2), ("m.onnx", 5), ("m.skops", 4), ("m.joblib", 4), ("m.npy", 4), ("m.pt", 2), ("m", 0)],
)
def test_a_pickle_is_never_loaded(hostage: Hostage, no_pickle: None, name: str, protocol: int) -> None:
    """A pickle under any name is refused and does not run: not here, not in the check's process."""
    ran = hostage.folder / "ran"
    source = hostage.folder / name
    source.write_bytes(pickle.dumps(Gadget(str(ran)), protocol=protocol))
    codes = ("format_not_allowed", "model_unreadable", "format_unknown")
    hostage.refuse(source, *(codes if protocol == 0 else codes[:1]))
    assert not ran.exists()


def test_a_file_of_objects_is_refused(hostage: Hostage, no_pickle: None) -> None:
    """An NPY file of objects is a pickle in a coat."""
    source = hostage.folder / "m.npy"
    np.save(source, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    hostage.refuse(source, "format_not_allowed")


def test_a_good_model_needs_no_pickle_either(hostage: Hostage, no_pickle: None, forest: bytes) -> None:
    """Publishing and loading a real model never unpickles anything in the server's process."""
    source = hostage.folder / "m.onnx"
    source.write_bytes(forest)
    version = hostage.publisher.publish("tree", source).version
    catalog = Catalog(hostage.artifacts, RUNTIMES, hostage.settings, SystemClock())
    catalog.refresh((version,))
    assert catalog.failures() == {}
    servable = catalog.get("tree", "1")
    assert servable.profile.batched
    assert [spec.name for spec in servable.signature.outputs] == ["label", "probabilities"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "model_empty"), (b"hello" * 100, "model_unreadable"), (bytes(4096), "model_unreadable")],
    ids=["empty", "text", "zeros"],
)
def test_what_is_no_model_is_refused(hostage: Hostage, content: bytes, code: str) -> None:
    """Empty, text, zeros: a code each."""
    source = hostage.folder / "m.onnx"
    source.write_bytes(content)
    hostage.refuse(source, code)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.9, 0.999])
def test_truncated_models_leave_nothing(hostage: Hostage, forest: bytes, part: float) -> None:
    """The whole way of a publish, for a few cuts (the next test does all of them)."""
    source = hostage.folder / "m.onnx"
    source.write_bytes(forest[: int(len(forest) * part)])
    hostage.refuse(source, "model_unreadable")


def test_tricks_with_names_touch_nothing(hostage: Hostage, forest: bytes) -> None:
    """A model called `../x` is refused before a byte is staged."""
    from modelyard.core.errors import InvalidRequestError

    source = hostage.folder / "m.onnx"
    source.write_bytes(forest)
    for name in ("../x", "..", "/etc/x", "a/../../x", "%2e%2e", "x\0y", "con\u202e"):
        with pytest.raises(InvalidRequestError) as refused:
            hostage.publisher.publish(name, source)
        assert refused.value.code == "name_invalid"
    assert sorted(path.name for path in hostage.folder.iterdir()) == [CANARY, "m.onnx"]


@pytest.mark.parametrize("location", ["../canary", "/etc/hostname", "link.bin"])
def test_external_data_stays_inside(hostage: Hostage, location: str) -> None:
    """Weights named outside the folder: by `..`, absolute, or through a link. Nothing outside is read."""
    folder = hostage.folder / "m"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(_external(location))
    if location == "link.bin":
        (folder / "link.bin").symlink_to("../canary")
    hostage.refuse(folder, "archive_unsafe" if location == "link.bin" else "external_data_outside")


def _external(location: str) -> bytes:
    from onnx import TensorProto, helper

    weights = helper.make_tensor("W", TensorProto.FLOAT, [2, 2], bytes(16), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    pair = weights.external_data.add()
    pair.key, pair.value = "location", location
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "XY")
    graph = helper.make_graph([helper.make_node("MatMul", ["X", "W"], ["Y"])], "g", [x], [y], [weights])
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_damaged_models_end_in_a_code(tmp_path: Path, forest: bytes) -> None:
    """64 cuts and 200 flipped bits: each is refused with a code of the tree, or is still a model that answers.

    Each file meets the check in a process of its own, confined as at a publish (forked here, so that 264 of them
    take seconds); a process that dies is what the confinement is for, and counted.
    """
    draw = random.Random(7)
    cuts = [forest[: max(1, len(forest) * i // TRUNCATIONS)] for i in range(TRUNCATIONS)]
    damaged = [("cut", content) for content in cuts]
    for _ in range(FLIPS):
        content = bytearray(forest)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        damaged.append(("flip", bytes(content)))
    seen: dict[str, int] = {}
    for i, (kind, content) in enumerate(damaged):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(content)
        what = _in_fork(folder)
        seen[what] = seen.get(what, 0) + 1
        assert what == "served" or what.startswith("died") or issubclass(CODES[what], PublishError)
        assert kind == "flip" or what in ("model_unreadable", "model_empty"), (i, what)


def _in_fork(folder: Path) -> str:
    """The code of the check's answer, "served", or "died N"."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads beside a fork; the alarm bounds what that could do here.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            os.close(reading)
            options = CheckOptions(timeout_s=20)
            confine(options)
            answer = _answer(folder, options)
            os.write(writing, answer.get("error", {"code": "served"})["code"].encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return said if os.waitstatus_to_exitcode(status) == 0 and said else f"died {os.waitstatus_to_exitcode(status)}"
