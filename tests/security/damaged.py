"""Damaged model files of every format: claims that no file keeps, names and numbers that no model should have."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

HUGE = 2**31 - 1
"""As many bytes or elements as a careless reader would make room for."""


def cuts(content: bytes, count: int) -> Iterator[bytes]:
    """The file, cut off at so many places."""
    for i in range(count):
        yield content[: max(1, len(content) * i // count)]


def wrong_magic(content: bytes) -> bytes:
    """The first eight bytes of something else."""
    return b"\x7fELF\x02\x01\x01\x00" + content[8:]


def onnx(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Shapes, names, weights and lengths of an ONNX model."""
    import numpy as np
    from onnx import ModelProto, numpy_helper

    def changed(change: Callable[[ModelProto], None]) -> bytes:
        model = ModelProto.FromString(content)
        change(model)
        return bytes(model.SerializeToString())

    def dims(*sizes: int) -> Callable[[ModelProto], None]:
        def change(model: ModelProto) -> None:
            for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
                dim.dim_value = size

        return change

    def rename(model: ModelProto) -> None:
        old, new = model.graph.input[0].name, "a\nb"
        model.graph.input[0].name = new
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]

    def nan(model: ModelProto) -> None:
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind == "f":
                tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, np.nan), tensor.name))
        for node in model.graph.node:
            for attribute in node.attribute:
                attribute.floats[:] = [float("nan")] * len(attribute.floats)

    def claim(model: ModelProto) -> None:
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type, tensor.raw_data = "claim", 1, b"1234"
        tensor.dims.extend([HUGE])

    yield "negative shape", changed(dims(-5, -4))
    yield "huge shape", changed(dims(2**40, 2**40))
    yield "newline", changed(rename)
    yield "NaN", changed(nan)
    yield "2 GB tensor", changed(claim)
    yield "2 GB field", content + b"\x3a" + b"\xff\xff\xff\xff\x07" + b"1234"


def zipped(content: bytes, inside: Mapping[str, Callable[[bytes], bytes]]) -> Iterator[tuple[str, bytes]]:
    """A zip archive that claims 2 GB of a member, or 4 of all; one in whose members `inside` changes something."""
    claimed = bytearray(content)
    for found in re.finditer(rb"PK\x01\x02", content):
        struct.pack_into("<I", claimed, found.start() + 24, HUGE)
    yield "2 GB member", bytes(claimed)
    yield "bomb", _rewritten(content, lambda name, old: old, {"archive/x" if b"archive/" in content else "x": 24})
    for label, change in inside.items():
        yield label, _rewritten(content, lambda name, old, change=change: change(old), {})  # type: ignore[misc]


def _rewritten(content: bytes, change: Callable[[str, bytes], bytes], zeros: Mapping[str, int]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), change(entry.filename, old.read(entry)))
        for name, mib in zeros.items():
            new.writestr(zipfile.ZipInfo(name), bytes(mib * 1024**2), zipfile.ZIP_DEFLATED)
    return made.getvalue()


def exported(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Sizes and names of an exported program's graph."""

    def graph(old: str, new: str) -> Callable[[bytes], bytes]:
        return lambda text: re.sub(old.encode(), new.encode(), text) if text[:1] == b"{" else text

    yield from zipped(
        content,
        {
            "negative shape": graph(r'"as_int": ?\d+', '"as_int": -4'),
            "huge shape": graph(r'"as_int": ?\d+', f'"as_int": {2**40}'),
            "newline": graph(r'"(input|args_0)"', r'"a\\nb"'),
            "NaN": lambda old: old if old[:1] in (b"{", b"8", b"p", b"l") else b"\x00\x00\xc0\x7f" * (len(old) // 4),
        },
    )


def scripted(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Weights that are no numbers, beside what all archives may claim."""

    def nan(old: bytes) -> bytes:
        is_weight = len(old) % 4 == 0 and len(old) >= 4 and b"torch" not in old and not old.isascii()
        return b"\x00\x00\xc0\x7f" * (len(old) // 4) if is_weight else old

    yield from zipped(content, {"NaN": nan})


def skops(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Arrays of the archive that claim another shape, or are no numbers."""

    def shape(text: str) -> Callable[[bytes], bytes]:
        def change(old: bytes) -> bytes:
            if not old.startswith(b"\x93NUMPY"):
                return old
            head = re.sub(rb"'shape': \([^)]*\)", b"'shape': " + text.encode(), old[10:128])
            return old[:10] + head[:117].ljust(117) + b"\n" + old[128:]

        return change

    def nan(old: bytes) -> bytes:
        if not old.startswith(b"\x93NUMPY") or b"'<f8'" not in old[:128]:
            return old
        return old[:128] + struct.pack("<d", float("nan")) * ((len(old) - 128) // 8)

    yield from zipped(
        content,
        {
            "negative shape": shape("(-3, 4)"),
            "huge shape": shape(f"({2**40}, 4)"),
            "2 GB tensor": shape(f"({HUGE // 8},)"),
            "NaN": nan,
        },
    )
    yield "newline", _named_skops(content)


def _named_skops(content: bytes) -> bytes:
    import numpy as np
    from skops import io as skops_io

    estimator = skops_io.loads(content, trusted=skops_io.get_untrusted_types(data=content))
    names = ["a\nb", *(f"c{i}" for i in range(1, estimator.n_features_in_))]
    (estimator[0] if hasattr(estimator, "steps") else estimator).feature_names_in_ = np.array(names, dtype=object)
    return bytes(skops_io.dumps(estimator))


def lightgbm(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Counts and numbers of LightGBM's text."""
    for label, old, new in (
        ("negative shape", rb"max_feature_idx=\d+", b"max_feature_idx=-5"),
        ("huge shape", rb"max_feature_idx=\d+", b"max_feature_idx=2147483647"),
        ("2 GB claim", rb"num_leaves=\d+", b"num_leaves=2147483647"),
        ("2 GB classes", rb"num_class=\d+", b"num_class=2147483647"),
        ("2 GB sizes", rb"tree_sizes=\d+", b"tree_sizes=2147483647"),
        ("negative leaves", rb"num_leaves=\d+", b"num_leaves=-1"),
        ("newline", rb"feature_names=\S+", b"feature_names=a\nb"),
        ("NaN", rb"(?m)^leaf_value=.*$", b"leaf_value=nan nan nan nan nan nan nan"),
    ):
        yield label, re.sub(old, new, content)


def xgboost_json(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Counts, names and numbers of XGBoost's JSON."""
    model = json.loads(content)
    names = [f"c{i}" for i in range(int(model["learner"]["learner_model_param"]["num_feature"]))]
    for label, old, new in (
        ("negative shape", rb'"num_feature":"\d+"', b'"num_feature":"-1"'),
        ("huge shape", rb'"num_feature":"\d+"', b'"num_feature":"2147483647"'),
        ("2 GB classes", rb'"num_class":"\d+"', b'"num_class":"2147483647"'),
        ("2 GB nodes", rb'"num_nodes":"\d+"', b'"num_nodes":"2147483647"'),
        ("negative trees", rb'"num_trees":"\d+"', b'"num_trees":"-1"'),
        ("NaN", rb'("base_weights":\[)[^\]]*\]', rb"\1NaN]"),
    ):
        yield label, re.sub(old, new, content)
    model["learner"]["feature_names"] = ["a\nb", *names[1:]]
    model["learner"]["feature_types"] = ["float"] * len(names)
    yield "newline", json.dumps(model).encode()
    yield "deep", b'{"learner":' + b"[" * 100_000


def xgboost_ubj(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Counts and numbers of UBJSON's arrays."""
    typed = re.compile(rb"(\[\$.#L)(.{8})", re.DOTALL)
    for label, count in (("2 GB array", HUGE), ("negative array", -1), ("huge array", 2**60)):
        claim = struct.pack(">q", count)
        yield label, typed.sub(lambda found, claim=claim: found[1] + claim, content, count=1)  # type: ignore[misc]
    floats = re.compile(rb"(\[\$d#L.{8})(.{4})", re.DOTALL)
    yield "NaN", floats.sub(lambda found: found[1] + b"\x7f\xc0\x00\x00", content)
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(content))
    booster.feature_names = ["a\nb", *(f"c{i}" for i in range(1, booster.num_features()))]
    yield "newline", bytes(booster.save_raw("ubj"))


def saved_model(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Shapes, names, constants and lengths of a SavedModel."""
    from tensorflow.core.protobuf import saved_model_pb2

    def changed(change: Callable[[Any], None]) -> bytes:
        model = saved_model_pb2.SavedModel.FromString(content)
        change(model.meta_graphs[0])
        return bytes(model.SerializeToString())

    def dims(size: int) -> Callable[[Any], None]:
        def change(meta: Any) -> None:
            for dim in meta.signature_def["serving_default"].inputs["x"].tensor_shape.dim:
                dim.size = size

        return change

    def constants(change: Callable[[Any], None]) -> Callable[[Any], None]:
        def each(meta: Any) -> None:
            for node in meta.graph_def.node:
                if node.op == "Const" and node.attr["dtype"].type == 1:
                    change(node.attr["value"].tensor)

        return each

    def rename(meta: Any) -> None:
        inputs = meta.signature_def["serving_default"].inputs
        inputs["a\nb"].CopyFrom(inputs["x"])
        del inputs["x"]

    def nan(tensor: Any) -> None:
        tensor.tensor_content = b"\x00\x00\xc0\x7f" * (len(tensor.tensor_content) // 4)

    def claim(*sizes: int) -> Callable[[Any], None]:
        def change(tensor: Any) -> None:
            del tensor.tensor_shape.dim[:]
            for size in sizes:
                tensor.tensor_shape.dim.add(size=size)

        return change

    def filled(tensor: Any) -> None:
        claim(HUGE, 4)(tensor)
        tensor.tensor_content = b""
        tensor.float_val.append(1.0)

    yield "negative shape", changed(dims(-5))
    yield "huge shape", changed(dims(2**40))
    yield "newline", changed(rename)
    yield "NaN", changed(constants(nan))
    yield "2 GB tensor", changed(constants(claim(HUGE, 4)))
    yield "negative tensor", changed(constants(claim(-2, 3)))
    yield "tensor from one number", changed(constants(filled))
    yield "2 GB field", content + b"\x12\xff\xff\xff\xff\x07" + b"1234"


TRICKS: Mapping[str, Callable[[bytes], Iterator[tuple[str, bytes]]]] = {
    "onnx": onnx,
    "sklearn": skops,
    "lightgbm": lightgbm,
    "xgboost-json": xgboost_json,
    "xgboost-ubj": xgboost_ubj,
    "torchscript": scripted,
    "torch-export": exported,
    "tensorflow": saved_model,
}
"""What is done to a sample of each format."""
