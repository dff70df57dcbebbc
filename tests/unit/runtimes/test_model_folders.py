"""Folders of MLflow and Hugging Face: flavour, signature, example, labels are read; what is unsafe has a sentence."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_folders as folders  # type: ignore[import-not-found]

from modelyard.core.errors import PublishError
from modelyard.models.report import CheckOptions, CheckReport, Overrides, SignatureCompletion, TensorCompletion
from modelyard.models.signing.trust import Signed
from modelyard.runtimes.check import check_files
from modelyard.runtimes.folders import describe
from modelyard.runtimes.folders.plain_yaml import read_yaml

FLAVOURS = ("onnx", "skops", "xgboost", "lightgbm", "pytorch")
NAMES = tuple(folders.COLUMNS)


def _check(folder: Path, **overrides: Any) -> CheckReport:
    return check_files(folder, CheckOptions(overrides=Overrides(**overrides)))


def _refused(folder: Path) -> PublishError:
    with pytest.raises(PublishError) as refused:
        _check(folder)
    assert str(folder.parent) not in refused.value.message + json.dumps(dict(refused.value.detail))
    assert refused.value.message.count("\n") == 0
    return refused.value


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_flavour_is_served_with_its_names(tmp_path: Path, flavour: str) -> None:
    """Each flavour that can be served: format and entry are found by `MLmodel`, names of columns come from its
    signature, its example is tried and kept as a request, and where it came from is said."""
    report = _check(folders.mlflow(tmp_path / "m", flavour))
    served = {"skops": "sklearn", "pytorch": "torch_export"}.get(flavour, flavour)
    assert report.format == served
    assert report.signature.inputs[0].columns == NAMES
    assert report.provenance["mlflow_flavor"] == {"skops": "sklearn"}.get(flavour, flavour)
    assert report.provenance["mlflow_version"] == folders.VERSION
    (given,) = (report.example or {})["inputs"]
    assert (given["name"], given["shape"]) == (report.signature.inputs[0].name, [2, 4])
    np.testing.assert_allclose(given["data"], folders.ROWS.ravel(), rtol=1e-6)


def test_the_best_flavour_is_served(tmp_path: Path) -> None:
    """Among several flavours ONNX goes first, and `python_function` never."""
    folder = folders.mlflow(tmp_path / "m", "onnx")
    text = (folder / "MLmodel").read_text()
    (folder / "MLmodel").write_text(
        text.replace("flavors:\n", "flavors:\n  sklearn:\n    pickled_model: model.pkl\n  spark:\n    data: x\n")
    )
    assert describe(folder).format == "onnx"


def test_the_owner_goes_first(tmp_path: Path) -> None:
    """Names and an example in `modelyard.json` go before those of `MLmodel`."""
    mine = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    report = _check(folders.mlflow(tmp_path / "m", "onnx"), columns=("a", "b", "c", "d"), example=mine)
    assert report.signature.inputs[0].columns == ("a", "b", "c", "d")
    assert report.example is None  # the publisher has it
    stated = SignatureCompletion(inputs=(TensorCompletion("X", columns=("e", "f", "g", "h")),))
    report = _check(folders.mlflow(tmp_path / "n", "onnx"), signature=stated)
    assert report.signature.inputs[0].columns == ("e", "f", "g", "h")
    assert report.example is not None  # by the folder's names


def test_the_models_own_order_of_names_stays(tmp_path: Path) -> None:
    """Where the model has names, `MLmodel` may have them in another order, or with the blanks that LightGBM cannot
    write; other names are of another model."""
    own = tuple(name.replace(" ", "_") for name in NAMES)
    report = _check(folders.mlflow(tmp_path / "a", "lightgbm", signature=folders.frame(*reversed(own)), example=None))
    assert report.signature.inputs[0].columns == own
    other = folders.mlflow(tmp_path / "b", "lightgbm", signature=folders.frame("w", "x", "y", "z"), example=None)
    assert _refused(other).code == "signature_conflict"


def test_a_skops_file_of_another_flavour(tmp_path: Path) -> None:
    """LightGBM's scikit-learn classes are logged as skops: the file decides."""
    assert _check(folders.mlflow(tmp_path / "m", "lightgbm-skops")).format == "sklearn"


def test_tensors_of_the_signature(tmp_path: Path) -> None:
    """A tensor's stated shape fills in what the model leaves open, and never what the model states; its datatype is
    that of the data, not of the model."""
    folder = folders.mlflow(tmp_path / "m", "onnx-open", signature=folders.tensors([-1, 4], dtype="float64"))
    assert _check(folder).signature.inputs[0].shape == (-1, 4)
    folder = folders.mlflow(tmp_path / "n", "onnx", signature=folders.tensors([-1, -1]))
    assert _check(folder).signature.inputs[0].shape == (-1, 4)


@pytest.mark.parametrize(
    "signature",
    [
        folders.frame("a", "b", "c"),
        folders.tensors([-1, 5]),
        folders.tensors([-1]),
        folders.tensors([-1, 4], name="nobody"),
        [*folders.tensors([-1, 4], name="X"), *folders.tensors([-1, 4], name="Y")],
    ],
)
def test_a_signature_of_another_model(tmp_path: Path, signature: Any) -> None:
    """Other columns, another width or rank, a name that the model does not have: signature_conflict."""
    assert _refused(folders.mlflow(tmp_path / "m", "onnx", signature=signature)).code == "signature_conflict"


@pytest.mark.parametrize("name", ["input", None])
def test_torchscript_by_mlflows_signature(tmp_path: Path, name: str | None) -> None:
    """TorchScript says nothing of its inputs; tensors of `MLmodel` do, a single one also without its name."""
    signature = folders.tensors([-1, 4], name=name)
    report = _check(folders.mlflow(tmp_path / "m", "torchscript", signature=signature, example=None))
    assert (report.format, report.signature.inputs[0].name) == ("torchscript", "input")
    assert report.signature.inputs[0].shape == (-1, 4)


@pytest.mark.parametrize(
    ("example", "kept"),
    [
        ({"dataframe_split": {"columns": list(NAMES), "data": folders.ROWS.tolist()}}, [2, 4]),
        ({"columns": list(NAMES), "data": folders.ROWS.tolist()}, [2, 4]),
        ({"inputs": folders.ROWS.tolist()}, [2, 4]),
        ({"inputs": (folders.ROWS.tolist() * 50)}, [8, 4]),
        ({"columns": list(NAMES), "data": [[1.0, 2.0, 3.0, None], [1, 2, 3, 4]]}, [1, 4]),
        ({"columns": list(NAMES), "data": [[1.0, 2.0, 3.0, None]]}, None),
        ([1, 2], None),
    ],
)
def test_forms_of_the_example(tmp_path: Path, example: Any, kept: list[int] | None) -> None:
    """A scoring request, a frame of older versions, a bare tensor; at most 8 rows, and none with a missing value."""
    report = _check(folders.mlflow(tmp_path / "m", "onnx", example=example))
    assert (None if report.example is None else report.example["inputs"][0]["shape"]) == kept


def test_an_example_of_another_model(tmp_path: Path) -> None:
    """It is named as the reason, with what is wrong in it."""
    refused = _refused(folders.mlflow(tmp_path / "m", "onnx", example={"inputs": [[1.0, 2.0, 3.0]]}))
    assert (refused.code, refused.detail["reason"]) == ("example_failed", "shape_mismatch")


PICKLES = {"sklearn": "serialization_format", "lightgbm-class": "booster_", "pytorch-pickle": "pt2"}


@pytest.mark.parametrize("flavour", PICKLES)
def test_pickles_inside_are_refused(tmp_path: Path, flavour: str) -> None:
    """A flavour whose file is a pickle: format_not_allowed, and the sentence says how to log it instead."""
    refused = _refused(folders.mlflow(tmp_path / "m", flavour))
    assert refused.code == "format_not_allowed"
    assert PICKLES[flavour] in refused.message


TRUSTED = Signed("a" * 16, trusted=True)
JAIL = {"memory_bytes": 2 * 1024**3, "tensor_bytes": 4 * 1024**2, "run_s": 5.0, "load_s": 60.0}


def test_an_estimator_in_a_pickle_is_served_in_its_jail(tmp_path: Path) -> None:
    """Allowed and signed, the pickle of the flavour `sklearn` is of the format `pickle`, with the names and the example
    of its folder."""
    folder = folders.mlflow(tmp_path / "m", "cloudpickle")
    report = check_files(folder, CheckOptions(unsafe_formats=("pickle",), signed=TRUSTED, jail=JAIL))
    assert (report.format, report.entry) == ("pickle", "model.pkl")
    assert report.signature.inputs[0].columns == NAMES
    assert report.provenance["mlflow_flavor"] == "sklearn"
    assert (report.example or {})["inputs"][0]["shape"] == [2, 4]


@pytest.mark.parametrize(
    ("allowed", "signed", "code", "words"),
    [
        ((), TRUSTED, "format_not_allowed", "allow `pickle` in models.unsafe_formats"),
        (("python",), TRUSTED, "format_not_allowed", "allow `pickle` in models.unsafe_formats"),
        (("pickle",), Signed(), "signature_missing", "its format `pickle` runs code"),
        (("pickle",), Signed("b" * 16), "signer_unknown", "not trusted"),
    ],
)
def test_an_estimator_in_a_pickle_needs_leave_and_a_signer(
    tmp_path: Path, allowed: tuple[str, ...], signed: Signed, code: str, words: str
) -> None:
    """One of both is not enough; the sentence says what is missing."""
    folder = folders.mlflow(tmp_path / "m", "cloudpickle")
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions(unsafe_formats=allowed, signed=signed, jail=JAIL))
    assert refused.value.code == code
    assert words in refused.value.message


@pytest.mark.parametrize("flavour", ["lightgbm-class", "pytorch-pickle", "python_function"])
def test_other_pickles_have_no_leave(tmp_path: Path, flavour: str) -> None:
    """No pickle but an estimator's is served, whatever is allowed and whoever signed."""
    folder = folders.mlflow(tmp_path / "m", flavour)
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions(unsafe_formats=("pickle", "python"), signed=TRUSTED, jail=JAIL))
    assert refused.value.code == "format_not_allowed"
    assert "unsafe_formats" not in refused.value.message


def test_python_alone_is_refused(tmp_path: Path) -> None:
    """`python_function` and nothing else is code."""
    refused = _refused(folders.mlflow(tmp_path / "m", "python_function"))
    assert (refused.code, refused.detail["field"]) == ("format_not_allowed", "MLmodel.flavors")
    assert "python_function" in refused.message


def test_an_unknown_flavour_is_named(tmp_path: Path) -> None:
    """format_unknown, with those that are known."""
    refused = _refused(folders.mlflow(tmp_path / "m", "prophet"))
    assert (refused.code, refused.detail["got"]) == ("format_unknown", ["prophet"])
    assert "onnx" in refused.message


@pytest.mark.parametrize("path", ["../other.onnx", "/etc/passwd", "a/../../x", "..\\x", "a\nb", "./../x", "//x"])
def test_a_path_that_leads_outside(tmp_path: Path, path: str) -> None:
    """archive_unsafe, in a flavour and in the example, whatever lies there."""
    (tmp_path / "other.onnx").write_bytes(b"secret")
    assert _refused(folders.mlflow(tmp_path / "m", "onnx", path=path)).code == "archive_unsafe"
    assert _refused(folders.mlflow(tmp_path / "n", "onnx", example_path=path)).code == "archive_unsafe"


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    """model_unreadable names the field and the file; the same for an example that is named and not there."""
    for folder in (
        folders.mlflow(tmp_path / "a", "onnx", path="no/such.onnx"),
        folders.mlflow(tmp_path / "b", "onnx", example_path="none.json"),
        folders.mlflow(tmp_path / "c", "pytorch", path="none"),
    ):
        refused = _refused(folder)
        assert refused.code == "model_unreadable"
        assert refused.detail["field"].startswith("MLmodel.")


BAD_YAML: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "list": b"- a\n- b\n",
    "broken": b"flavors: {onnx: [",
    "binary": bytes(range(256)),
    "no flavours": b"run_id: a\n",
    "a type": b"flavors: !!python/object/apply:os.system ['true']\n",
    "a tag": b"flavors: !mine {}\n",
    "an anchor": b"flavors: &a {onnx: {data: x}}\nb: *a\n",
    "twice": b"flavors: {onnx: {data: a, data: b}}\n",
    "deep": b"flavors: " + b"{a: " * 5000 + b"}" * 5000,
    "deep list": b"[" * 100_000,
    "two documents": b"a: b\n---\nc: d\n",
    "no path": b"flavors: {onnx: {version: 1}}\n",
    "signature": b"flavors: {onnx: {data: model.onnx}}\nsignature: {inputs: '[{\"name\": 1}]'}\n",
    "large": b"# " + b"x" * 1024 * 1024,
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_bad_manifests(tmp_path: Path, name: str) -> None:
    """manifest_invalid, whatever is wrong with it, and no type of the file is ever made."""
    folder = folders.mlflow(tmp_path / "m", "onnx")
    (folder / "MLmodel").write_bytes(BAD_YAML[name])
    refused = _refused(folder)
    assert refused.code == "manifest_invalid"
    assert str(refused.detail["field"]).startswith("MLmodel")


def test_damaged_manifests_end_in_a_code(tmp_path: Path) -> None:
    """500 seeded damages of a real `MLmodel`: a description or a refusal, never anything else."""
    draw = random.Random(3)
    folder = folders.mlflow(tmp_path / "m", "onnx")
    whole = (folder / "MLmodel").read_bytes()
    described = 0
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.2:
            del content[draw.randrange(len(content)) :]
        (folder / "MLmodel").write_bytes(content)
        try:
            describe(folder)
            described += 1
        except PublishError:
            continue
    assert 50 < described < 450


def test_values_are_text() -> None:
    """No date, number, truth or null is made of a scalar."""
    assert read_yaml(b"a: 2024-01-01\nb: [1, yes, ~, 0x1f, 1e3]\n") == {
        "a": "2024-01-01",
        "b": ["1", "yes", "~", "0x1f", "1e3"],
    }


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command."""
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    refused = _refused(folders.mlflow(tmp_path / "m", "onnx"))
    assert (refused.code, refused.detail["example"]) == ("runtime_missing", "pip install 'modelyard[mlflow]'")


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    """`onnx/model.onnx` is served, the names of the classes come from `config.json`, weights beside it are not
    looked at."""
    folder = folders.huggingface(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    report = _check(folder)
    assert (report.format, report.entry) == ("onnx", "onnx/model.onnx")
    assert [spec.name for spec in report.signature.inputs] == ["input_ids", "attention_mask"]
    assert report.signature.outputs[0].labels == ("NEGATIVE", "POSITIVE")
    assert report.provenance["architecture"] == "DistilBertForSequenceClassification"


def test_labels_that_fit_no_output_are_left_out(tmp_path: Path) -> None:
    """`id2label` of another head is no reason to refuse the model."""
    report = _check(folders.huggingface(tmp_path / "m", id2label={"0": "a", "1": "b", "2": "c"}))
    assert report.signature.outputs[0].labels == ()


def test_which_onnx_of_several(tmp_path: Path) -> None:
    """The usual name, or the only one; else the choice is the owner's."""
    folder = folders.huggingface(tmp_path / "m", name="onnx/model_quantized.onnx")
    assert describe(folder).entry == "onnx/model_quantized.onnx"
    (folder / "onnx" / "decoder.onnx").write_bytes(b"x")
    assert _refused(folder).code == "format_unknown"
    (folder / "model.onnx").write_bytes((folder / "onnx" / "model_quantized.onnx").read_bytes())
    assert describe(folder).entry == "model.onnx"


@pytest.mark.parametrize("named", [{"0": "a", "2": "b"}, {"a": "b"}, {"1": "a", "2": "b"}])
def test_labels_that_do_not_count(tmp_path: Path, named: dict[str, str]) -> None:
    """manifest_invalid names the field."""
    refused = _refused(folders.huggingface(tmp_path / "m", id2label=named))
    assert (refused.code, refused.detail["field"]) == ("manifest_invalid", "config.json.id2label")


def test_transformers_without_onnx(tmp_path: Path) -> None:
    """Weights alone are refused with the command that exports them."""
    folder = folders.huggingface(tmp_path / "m")
    (folder / "onnx" / "model.onnx").unlink()
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    refused = _refused(folder)
    assert refused.code == "format_not_allowed"
    assert "optimum-cli export onnx" in refused.message


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"version": 1}', "nothing", '{"model_type": 5}'])
def test_another_config_is_no_description(tmp_path: Path, content: str) -> None:
    """`config.json` of something else changes nothing: the content of the files decides."""
    folder = folders.huggingface(tmp_path / "m")
    (folder / "config.json").write_text(content)
    report = _check(folder)
    assert (report.format, report.signature.outputs[0].labels) == ("onnx", ())


@pytest.mark.parametrize("make", [folders.huggingface, lambda folder: folders.mlflow(folder, "onnx")])
def test_published_as_a_folder(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The whole way of a publish, with the check in its process; the example is in the manifest."""
    from modelyard.core.clock import SystemClock
    from modelyard.core.settings import load_settings
    from modelyard.models.publish import Publisher
    from modelyard.runtimes.child import check_in_child
    from modelyard.testing import MemoryArtifactStore, MemoryRegistry

    settings = load_settings(data=tmp_path / "data")
    publisher = Publisher(MemoryRegistry(), MemoryArtifactStore(), settings, SystemClock(), check_in_child)
    manifest = publisher.publish("m", make(tmp_path / "m")).version.manifest
    assert manifest.entry in {file.path for file in manifest.files}
    assert len(manifest.files) > 1
    assert (manifest.example is not None) == ("mlflow_flavor" in manifest.provenance)
