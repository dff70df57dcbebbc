"""ONNX: the signature as the file states it, answers equal to scikit-learn's, refusals with a code and no paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_onnx import T, external, manifest, model, save  # type: ignore[import-not-found]

from modelyard.core.clock import SystemClock
from modelyard.core.errors import InvalidRequestError, ModelError, ModelyardError, PublishError
from modelyard.core.types import Signature, TensorSpec
from modelyard.models.load import check_load
from modelyard.models.report import CheckOptions
from modelyard.runtimes.check import check_files
from modelyard.runtimes.onnx import OnnxModel, OnnxRuntime

RUNTIME = OnnxRuntime()


def _load(folder: Path) -> OnnxModel:
    entry = RUNTIME.detect(folder)
    assert entry is not None
    signature = RUNTIME.inspect(folder, entry, {}).signature
    return RUNTIME.load(folder, manifest(signature, entry), {"threads": 1})


def _trained(table: str, text_labels: bool = False) -> tuple[Any, Any, Any]:
    """A forest on two thirds of a table of scikit-learn, the rest's rows, and the table.

    An odd number of trees: where half of an even number vote for each of two classes, the export's float32 sum and
    scikit-learn's float64 sum break the tie differently.
    """
    from sklearn import datasets
    from sklearn.ensemble import RandomForestClassifier

    bunch = getattr(datasets, f"load_{table}")()
    rows = bunch.data.astype(np.float32)
    target = np.asarray([str(n) for n in bunch.target_names])[bunch.target] if text_labels else bunch.target
    held = np.arange(len(rows)) % 3 == 0
    return RandomForestClassifier(21, random_state=0).fit(rows[~held], target[~held]), rows[held], bunch


@pytest.mark.parametrize("table", ["breast_cancer", "digits", "wine", "iris"])
@pytest.mark.parametrize("zipmap", [False, True])
def test_real_tables_answer_as_scikit_learn_does(tmp_path: Path, table: str, zipmap: bool) -> None:
    """Four real tables: shapes, labels and every held-out answer agree with the model that was exported, with
    probabilities as a matrix also where the exporter made one map per row (ZipMap)."""
    from skl2onnx import to_onnx

    forest, rows, _ = _trained(table)
    proto = to_onnx(forest, rows[:1], options={"zipmap": zipmap})
    loaded = _load(save(proto, tmp_path / "m"))
    labels = tuple(str(label) for label in forest.classes_)
    first, second = loaded.signature.outputs
    assert loaded.signature.inputs == (TensorSpec("X", "FP32", (-1, rows.shape[1])),)
    assert (first.datatype, first.shape) == ("INT64", (-1,))
    assert (second.datatype, second.shape, second.labels) == ("FP32", (-1, len(labels)), labels)
    got = loaded.run({"X": rows}, ())
    np.testing.assert_array_equal(got[first.name], forest.predict(rows))
    np.testing.assert_allclose(got[second.name], forest.predict_proba(rows), atol=1e-5)
    assert check_load(loaded, None, 1e9, SystemClock()).batched


def test_text_labels_come_out_as_bytes(tmp_path: Path) -> None:
    """A classifier with text classes: BYTES labels, and the classes named in the order of the probabilities."""
    from skl2onnx import to_onnx

    forest, rows, _ = _trained("wine", text_labels=True)
    for zipmap in (False, True):
        loaded = _load(save(to_onnx(forest, rows[:1], options={"zipmap": zipmap}), tmp_path / str(zipmap)))
        label, scores = loaded.signature.outputs
        got = loaded.run({"X": rows}, ())
        assert (label.datatype, scores.labels) == ("BYTES", tuple(forest.classes_))
        assert [item.decode() for item in got[label.name]] == list(forest.predict(rows))
        np.testing.assert_allclose(got[scores.name], forest.predict_proba(rows), atol=1e-5)


def test_text_goes_in_as_utf_8(tmp_path: Path) -> None:
    """BYTES in and out are the same bytes; what is not UTF-8 is a bad value, not a model that broke."""
    loaded = _load(save(model(datatype=T.STRING), tmp_path / "m"))
    text = np.array([[b"a", "é".encode()]], dtype=object)
    assert loaded.run({"X": text}, ())["Y"].tolist() == text.tolist()
    with pytest.raises(InvalidRequestError) as refused:
        loaded.run({"X": np.array([[b"\xff", b"a"]], dtype=object)}, ())
    assert refused.value.code == "value_invalid"


@pytest.mark.parametrize(
    "datatype", [T.BOOL, T.UINT8, T.UINT16, T.UINT32, T.UINT64, T.INT8, T.INT16, T.INT32, T.INT64, T.FLOAT16, T.DOUBLE]
)
def test_every_datatype_passes_through(tmp_path: Path, datatype: int) -> None:
    """Each numeric datatype loads, warms up and batches."""
    report = check_files(save(model(datatype=datatype), tmp_path / "m"), CheckOptions())
    assert report.profile.batched
    assert report.signature.inputs[0].datatype == report.signature.outputs[0].datatype


def test_dimensions_and_metadata_are_read(tmp_path: Path) -> None:
    """Symbolic dimensions are -1, fixed ones stay; columns and labels may come from the file's own metadata."""
    made = model(shape=["N", 3])
    for key, value in {"columns": '["a", "b", "c"]', "labels": '["x", "y", "z"]'}.items():
        pair = made.metadata_props.add()
        pair.key, pair.value = key, value
    found = RUNTIME.inspect(save(made, tmp_path / "m"), "model.onnx", {})
    assert found.signature.inputs[0] == TensorSpec("X", "FP32", (-1, 3), columns=("a", "b", "c"))
    assert found.signature.outputs[0].labels == ("x", "y", "z")
    assert found.provenance["opset"] == "ai.onnx 18"
    fixed = check_files(save(model(shape=[4, 2]), tmp_path / "f"), CheckOptions())
    assert fixed.signature.inputs[0].shape == (4, 2)
    assert fixed.profile.batched is False


REFUSED: dict[str, tuple[Any, str]] = {
    "opset of the future": (lambda: model(opset=99), "opset_unsupported"),
    "opset 0": (lambda: model(opset=0), "opset_unsupported"),
    "IR of the future": (lambda: model(ir=99), "opset_unsupported"),
    "custom operator": (lambda: model("Evil", domain="custom.x"), "format_not_allowed"),
    "unknown operator": (lambda: model("Nothing"), "opset_unsupported"),
    "newline in a name": (lambda: model(name="a\nb"), "format_not_allowed"),
    "bfloat16": (lambda: model(datatype=T.BFLOAT16), "format_not_allowed"),
    "complex": (lambda: model(datatype=T.COMPLEX64), "format_not_allowed"),
    "negative shape": (lambda: model(shape=["N", -5]), "format_not_allowed"),
    "huge shape": (lambda: model(shape=["N", 2**40]), "format_not_allowed"),
    "external ..": (lambda: external("../outside.bin"), "external_data_outside"),
    "external absolute": (lambda: external("/etc/hostname"), "external_data_outside"),
    "external symlink": (lambda: external("link.bin"), "external_data_outside"),
    "external in memory": (lambda: external("*/_ORT_MEM_ADDR_/*"), "external_data_outside"),
    "external before": (lambda: external("inside.bin", 32, "-16"), "model_unreadable"),
    "external in other digits": (lambda: external("inside.bin", "1_6"), "model_unreadable"),
    "external backslash": (lambda: external("..\\outside.bin"), "external_data_outside"),
    "external missing": (lambda: external("missing.bin"), "model_unreadable"),
    "external cut off": (lambda: external("short.bin"), "model_unreadable"),
    "external 2 GB claim": (lambda: external("inside.bin", 2**31), "model_unreadable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_are_refused(tmp_path: Path, case: str) -> None:
    """Each has its code, a field, and neither a path of this host nor a traceback in its words."""
    make, code = REFUSED[case]
    folder = save(make(), tmp_path / "m")
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    (folder / "inside.bin").write_bytes(bytes(16))
    (folder / "short.bin").write_bytes(bytes(8))
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (folder / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(16))
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions())
    assert refused.value.code == code
    assert refused.value.detail["field"]
    words = f"{refused.value.message} {dict(refused.value.detail)}"
    assert str(tmp_path) not in words
    assert "onnxruntime_src" not in words
    assert "Traceback" not in words
    if code == "opset_unsupported" and "future" in case:
        assert "99" in words


def test_external_data_inside_is_served(tmp_path: Path) -> None:
    """Weights beside the model load, and the answer uses them."""
    folder = save(external("inside.bin"), tmp_path / "m")
    (folder / "inside.bin").write_bytes(np.full((2, 2), 3, np.float32).tobytes())
    loaded = _load(folder)
    assert loaded.run({"X": np.ones((1, 2), np.float32)}, ())["Y"].tolist() == [[6.0, 6.0]]


def test_onnx_is_read_as_onnx_whatever_its_name(tmp_path: Path) -> None:
    """By the name `x.ort` ONNX Runtime chooses a format of its own, which the publish check has not looked at."""
    folder = save(model(), tmp_path / "m", "model.ort")
    (folder / "README").write_text("of two files each keeps its name")
    rows = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(next(iter(_load(folder).run({"X": rows}, ()).values())), rows)


def test_the_runtime_itself_confines_external_data(tmp_path: Path) -> None:
    """The second lock: a load without the inspection before it is refused too."""
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    folder = save(external("../outside.bin"), tmp_path / "m")
    nothing = manifest(Signature((), ()))
    with pytest.raises(PublishError) as refused:
        RUNTIME.load(folder, nothing, {})
    assert refused.value.code == "external_data_outside"


def test_a_model_that_fails_says_so_without_paths(tmp_path: Path) -> None:
    """A run that raises is model_failed; so is a run after close."""
    loaded = _load(save(model(shape=["N", 2]), tmp_path / "m"))
    with pytest.raises(ModelError) as failed:
        loaded.run({"X": np.ones((1, 3), np.float32)}, ())
    assert str(tmp_path) not in failed.value.message
    assert "onnxruntime_src" not in failed.value.message
    loaded.close()
    loaded.close()
    with pytest.raises(ModelyardError):
        loaded.run({"X": np.ones((1, 2), np.float32)}, ())


def test_one_model_of_several_is_chosen_by_name(tmp_path: Path) -> None:
    """Two models in a folder are refused unless one is `model.onnx`."""
    folder = save(model(), tmp_path / "m", "a.onnx")
    save(model(), folder, "b.onnx")
    with pytest.raises(PublishError):
        RUNTIME.detect(folder)
    save(model(), folder)
    assert RUNTIME.detect(folder) == "model.onnx"


def test_the_server_never_imports_the_parser_of_protobufs(tmp_path: Path) -> None:
    """Detecting and loading need ONNX Runtime alone: `onnx` and `google.protobuf` stay out of the process."""
    folder = save(model(), tmp_path / "m")
    script = f"""
import sys
from pathlib import Path
from modelyard.core.types import Signature, TensorSpec
from modelyard.models.manifest import Manifest
from modelyard.runtimes import detect
folder = Path({str(folder)!r})
runtime, entry = detect(folder)
spec = (TensorSpec("Y", "FP32", (-1, 2)),)
runtime.load(folder, Manifest("onnx", entry, (), Signature(spec, spec)), {{}})
assert "onnxruntime" in sys.modules
assert not {{"onnx", "google.protobuf", "sklearn", "skops"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
