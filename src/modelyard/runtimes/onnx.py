"""ONNX models on ONNX Runtime, on the CPU.

The server reads a model with ONNX Runtime alone; what the file says of itself was read at publish (onnx_file.py) and
stands in the manifest. Custom operators are off: nothing registers a library, and none is loaded from the model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import InvalidRequestError, ModelError, PublishError
from modelyard.core.types import Array, Signature, Tensors
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import reason, unreadable
from modelyard.runtimes.tensorflow.detection import USUAL

HEAD_BYTES = 4096
_OPSET = re.compile(r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL)
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_MODEL_FIELDS: Mapping[int, int] = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Fields of ModelProto and their wire types."""


class OnnxRuntime:
    """The port `models.ports.Runtime` for ONNX."""

    format = "onnx"

    def detect(self, folder: Path) -> str | None:
        """The one file that begins like a ModelProto; among several `model.onnx`, or the only `*.onnx`."""
        found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if _begins_like_onnx(path)]
        named = [path for path in found if path.endswith(".onnx")] or found
        if "model.onnx" in named:
            return "model.onnx"
        if len(named) > 1:
            raise PublishError(
                "format_unknown",
                "The folder holds several ONNX models; name the one to serve `model.onnx`.",
                field="model",
                expected="one ONNX model",
                got=named[:10],
            )
        return named[0] if named else None

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Signature, labels and provenance; PublishError."""
        from modelyard.runtimes.onnx_file import inspect_onnx

        return inspect_onnx(folder, entry)

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> OnnxModel:
        """The model with `options["threads"]` threads; PublishError."""
        # Read at import: its telemetry, on by default, reports to its maker and leaves files among the temporary ones.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        # ONNX Runtime writes warnings to stderr by itself; what matters comes as an exception.
        onnxruntime.set_default_logger_severity(4)
        wanted = onnxruntime.SessionOptions()
        wanted.intra_op_num_threads = int(options.get("threads", 1))
        wanted.inter_op_num_threads = 1
        wanted.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        wanted.log_severity_level = 4
        # By the name `x.ort` it would choose another format, which the publish check has not looked at.
        wanted.add_session_config_entry("session.load_model_format", "ONNX")
        # Spinning threads burn the core that the event loop needs.
        wanted.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted.add_session_config_entry("session.inter_op.allow_spinning", "0")
        path = folder / manifest.entry
        if not path.is_file() or path.stat().st_size == 0:
            raise PublishError("model_empty", "The model is empty: it holds no bytes.", field="model", got="0 bytes")
        try:
            session = onnxruntime.InferenceSession(str(path), wanted, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _load_refusal(error) from None
        return OnnxModel(session, manifest.signature)


class OnnxModel:
    """A session; `core.types.LoadedModel`.

    Text tensors hold `bytes` outside and `str` inside. A ZipMap's output (one map per row) becomes a matrix: ONNX
    Runtime gives the maps out sorted by class, which is the order of the signature's labels.
    """

    def __init__(self, session: Any, signature: Signature) -> None:
        self.signature = signature
        self._session = session
        # The session behind the wrapper, where it is: the wrapper looks at the inputs' names each time (3 µs), which
        # the decoder has done.
        self._run: Any = getattr(session, "_sess", session).run
        stated = {output.name: output.type for output in session.get_outputs()}
        self._names = [spec.name for spec in signature.outputs if spec.name in stated]
        self._text_inputs = frozenset(i.name for i in session.get_inputs() if i.type == "tensor(string)")
        self._rebuild = {
            name: _text_out if kind == "tensor(string)" else _maps_out
            for name, kind in stated.items()
            if kind == "tensor(string)" or kind.startswith("seq(map(")
        }

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port. InvalidRequestError("value_invalid") for text that is not UTF-8."""
        names = list(outputs) or self._names
        feed: Any = inputs
        if self._text_inputs:
            feed = {n: _text_in(n, array) if n in self._text_inputs else array for n, array in inputs.items()}
        run = self._run
        if run is None:
            raise ModelError("model_failed", "The model is no longer in memory.")
        try:
            results = run(names, feed, None)
        except Exception as error:
            raise ModelError("model_failed", f"The model failed on this input: {reason(error)}") from None
        if not self._rebuild:
            return dict(zip(names, results, strict=True))
        rebuild = self._rebuild
        return {n: rebuild[n](r) if n in rebuild else r for n, r in zip(names, results, strict=True)}

    def compact(self, inputs: Tensors) -> None:
        """See the port. ONNX Runtime's arena keeps what the largest run and the loading took (an image model of 46 MB:
        260 MB after a run of 32 rows, 60 MB compacted) until a run is told to shrink it."""
        if self._run is None or self._text_inputs:
            return
        import onnxruntime

        shrinking = onnxruntime.RunOptions()
        shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run(self._names, inputs, shrinking)

    def close(self) -> None:
        """Lets go of the session; a run that holds it ends first."""
        self._session = self._run = None


def _text_in(name: str, array: Array) -> Array:
    """Bytes to text. ONNX Runtime would print `b'…'` into the tensor otherwise."""
    out = np.empty(array.size, dtype=np.object_)
    try:
        out[:] = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError:
        raise InvalidRequestError(
            "value_invalid",
            f"The input `{name}` holds text that is not UTF-8, which this model cannot read.",
            field=name,
            expected="UTF-8 text",
            got="other bytes",
        ) from None
    return out.reshape(array.shape)


def _text_out(result: Any) -> Array:
    array = np.asarray(result, dtype=np.object_)
    out = np.empty(array.size, dtype=np.object_)
    out[:] = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    return out.reshape(array.shape)


def _maps_out(result: Any) -> Array:
    return np.array([list(row.values()) for row in result], dtype=np.float32)


def _load_refusal(error: Exception) -> PublishError:
    text = str(error)
    if match := _OPSET.search(text):
        got, domain, most = int(match[1]), match[2], int(match[3])
        return _opset_refusal(f"operator set {domain} {got}", f"{domain} up to {most}", got)
    if match := _IR.search(text):
        return _opset_refusal(f"ONNX IR version {match[1]}", f"up to {match[2]}", int(match[1]))
    if "External data path" in text and ("escapes" in text or "Absolute" in text):
        return PublishError(
            "external_data_outside",
            "The model's external data lies outside its folder.",
            field="external_data.location",
            expected="a file inside the model's folder",
        )
    if any(words in text for words in ("NOT_IMPLEMENTED", "is not a registered function/op", "No Op registered")):
        return PublishError(
            "opset_unsupported",
            f"The model uses an operator that ONNX Runtime does not have: {reason(error)}",
            field="opset",
        )
    return unreadable("ONNX", reason(error))


def _opset_refusal(what: str, expected: str, got: int) -> PublishError:
    return PublishError(
        "opset_unsupported",
        f"The model uses {what}; {expected} is supported here. Export it with an older one.",
        field="opset",
        expected=expected,
        got=got,
    )


def _begins_like_onnx(path: Path) -> bool:
    """Whether the first fields are those of a ModelProto with an IR version, cut off or not (onnx.proto)."""
    if path.is_symlink() or not path.is_file() or _is_checkpoint(path):
        return False
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    seen = set()
    for number, wire, value in _fields(head):
        # IR version 1 was never released; a SavedModel begins like it.
        if _MODEL_FIELDS.get(number) != wire or (number == 1 and not 1 < value < 10_000):
            return False
        seen.add(number)
    return bool(seen & {1, 7}) or head in (b"\x08", b"\x0a")


def _is_checkpoint(path: Path) -> bool:
    """Whether the file belongs to the SavedModel beside: of bare weights one in two hundred begins like ONNX."""
    return path.parent.name == "variables" and path.parent.with_name(USUAL).is_file()


def _fields(head: bytes) -> Iterator[tuple[int, int, int]]:
    """Top-level protobuf fields: number, wire type, value or length; stops where the bytes end."""
    at = 0
    while at < len(head):
        tag, at = _varint(head, at)
        number, wire = tag >> 3, tag & 7
        value, at = _varint(head, at)
        if at > len(head):
            return
        yield number, wire, value
        at += value if wire == 2 else 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    return value, len(data) + 1
