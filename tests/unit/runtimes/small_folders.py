"""Model folders as MLflow 3 and Optimum write them, with small models inside."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

VERSION = "3.17.2"
COLUMNS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [4.9, 3.0, 1.4, 0.2]])
UNSET = object()

TEXT = """\
flavors:
{flavors}  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.{module}
    data: {data}
    python_version: 3.11.7
is_signature_from_type_hint: false
mlflow_version: {version}
model_id: null
model_size_bytes: 1234
model_uuid: 2f1f2a0cbd4c4f2b8f3e5f6a7b8c9d0e
prompts: null
{example}signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "long", "name": "target", "required": true}}]'
  params: null
type_hint_from_example: false
utc_time_created: '2026-11-20 09:30:00.123456'
"""
FLAVOUR = """\
  {name}:
    code: null
    {field}: {data}
    serialization_format: {form}
"""


def frame(*names: str) -> list[dict[str, Any]]:
    """A signature of columns."""
    return [{"type": "double", "name": name, "required": True} for name in names]


def tensors(shape: Sequence[int], name: str | None = None, dtype: str = "float32") -> list[dict[str, Any]]:
    """A signature of one tensor."""
    named = {} if name is None else {"name": name}
    return [{"type": "tensor", **named, "tensor-spec": {"dtype": dtype, "shape": list(shape)}}]


def mlflow(
    folder: Path,
    kind: str,
    *,
    signature: Any = UNSET,
    example: Any = UNSET,
    path: str | None = None,
    example_path: str = "serving_input_example.json",
) -> Path:
    """A folder of this flavour, trained on iris; `path` and `example_path` replace what `MLmodel` names."""
    folder.mkdir()
    name, field, data, make = KINDS[kind]
    if make is not None:
        (folder / data).parent.mkdir(exist_ok=True)
        (folder / data).write_bytes(make())
    stated = data.split("/")[0] if name == "pytorch" else data
    if example is UNSET:
        example = {"dataframe_split": {"columns": list(COLUMNS), "data": ROWS.tolist()}}
    if example is not None:
        (folder / "serving_input_example.json").write_text(json.dumps(example))
    info = (
        f"saved_input_example_info:\n  artifact_path: input_example.json\n"
        f"  serving_input_path: {json.dumps(example_path)}\n  type: dataframe\n"
    )
    flavors = FLAVOUR.format(name=name, field=field, data=json.dumps(path or stated), form=kind) if name else ""
    inputs = json.dumps(frame(*COLUMNS) if signature is UNSET else signature)
    (folder / "MLmodel").write_text(
        TEXT.format(
            flavors=flavors, module=name or "pyfunc.model", data=stated, version=VERSION, inputs=inputs,
            example="" if example is None else info,
        )
    )  # fmt: skip
    for other in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        (folder / other).write_text("mlflow\n")
    return folder


@cache
def _iris() -> tuple[Any, Any, Any]:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, target = load_iris(return_X_y=True)
    return rows, target, LogisticRegression(max_iter=1000).fit(rows, target)


@cache
def _onnx() -> bytes:
    from skl2onnx import to_onnx

    rows, _, model = _iris()
    return bytes(to_onnx(model, rows[:1].astype(np.float32), options={"zipmap": False}).SerializeToString())


@cache
def _open() -> bytes:
    """`Y = X` of any width."""
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "M"]) for name in "XY"]
    graph = helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "g", made[:1], made[1:])
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


@cache
def _skops() -> bytes:
    from skops.io import dumps

    return bytes(dumps(_iris()[2]))


@cache
def _lightgbm() -> bytes:
    from lightgbm import Dataset, train

    rows, target, _ = _iris()
    data = Dataset(rows, target, feature_name=[name.replace(" ", "_") for name in COLUMNS])
    booster = train({"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}, data, 3)
    return str(booster.model_to_string()).encode()


@cache
def _xgboost() -> bytes:
    from xgboost import XGBClassifier

    rows, target, _ = _iris()
    return bytes(XGBClassifier(n_estimators=3, n_jobs=1).fit(rows, target).get_booster().save_raw("ubj"))


def _layer() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3)).eval()


@cache
def _exported() -> bytes:
    import torch

    made = torch.export.export(
        _layer(), (torch.zeros(3, 4),), dynamic_shapes=({0: torch.export.Dim("rows", max=4096)},)
    )
    file = BytesIO()
    torch.export.save(made, file)
    return file.getvalue()


@cache
def _scripted() -> bytes:
    import torch

    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(_layer()), file)
    return file.getvalue()


@cache
def _checkpoint() -> bytes:
    import torch

    file = BytesIO()
    torch.save(_layer().state_dict(), file)
    return file.getvalue()


def _pickle() -> bytes:
    return b"\x80\x05\x95\x0b\x00\x00\x00\x00\x00\x00\x00."


def _estimator() -> bytes:
    import cloudpickle
    from sklearn.linear_model import LogisticRegression

    rows, labels, _ = _iris()
    return bytes(cloudpickle.dumps(LogisticRegression(max_iter=500).fit(rows, labels)))


Kind = tuple[str, str, str, Callable[[], bytes] | None]
KINDS: Mapping[str, Kind] = {
    "onnx": ("onnx", "data", "model.onnx", _onnx),
    "onnx-open": ("onnx", "data", "model.onnx", _open),
    "skops": ("sklearn", "pickled_model", "model.skops", _skops),
    "sklearn": ("sklearn", "pickled_model", "model.pkl", _pickle),
    "cloudpickle": ("sklearn", "pickled_model", "model.pkl", _estimator),
    "xgboost": ("xgboost", "data", "model.ubj", _xgboost),
    "lightgbm": ("lightgbm", "data", "model.lgb", _lightgbm),
    "lightgbm-class": ("lightgbm", "data", "model.pkl", _pickle),
    "lightgbm-skops": ("lightgbm", "data", "model.skops", _skops),
    "pytorch": ("pytorch", "model_data", "data/model.pt2", _exported),
    "torchscript": ("pytorch", "model_data", "data/model.pth", _scripted),
    "pytorch-pickle": ("pytorch", "model_data", "data/model.pth", _checkpoint),
    "python_function": ("", "", "python_model.pkl", _pickle),
    "prophet": ("prophet", "data", "model.pr", _pickle),
}
"""By kind: the flavour, the field that names its file, the file, and what makes its content."""


def huggingface(folder: Path, name: str = "onnx/model.onnx", id2label: Mapping[str, str] | None = None) -> Path:
    """A sequence classifier as Optimum exports one: mean of embeddings, two classes, both dimensions open."""
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(_classifier())
    config = {
        "architectures": ["DistilBertForSequenceClassification"],
        "id2label": id2label or {"1": "POSITIVE", "0": "NEGATIVE"},
        "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
        "model_type": "distilbert",
        "transformers_version": "4.51.0",
        "vocab_size": 50,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


@cache
def _classifier() -> bytes:
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.standard_normal((50, 8)).astype(np.float32), "words"),
        numpy_helper.from_array(draw.standard_normal((8, 2)).astype(np.float32), "head"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "along"),
    ]
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["embedded", "wide"], ["kept"]),
        helper.make_node("ReduceMean", ["kept", "along"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    shape = ["batch_size", "sequence_length"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", 2])]
    graph = helper.make_graph(nodes, "main_graph", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
