"""MLflow model folders: `MLmodel` names flavours, one of which is served. Nothing of MLflow is imported or run.

Source of the structure: MLflow, "MLflow Models", Storage Format; `mlflow/models/model.py`. All values are taken as
text, so that no YAML type can surprise.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import PublishError
from modelyard.models.report import TensorCompletion
from modelyard.models.stage import check_path
from modelyard.runtimes.folders.description import Description
from modelyard.runtimes.folders.plain_yaml import read_yaml
from modelyard.runtimes.refusals import extra_missing, is_pickle, leave, not_spoken
from modelyard.runtimes.sklearn import is_skops
from modelyard.runtimes.tensorflow.detection import USUAL
from modelyard.runtimes.torch.archive import kind_of

MANIFEST = "MLmodel"
MAX_BYTES = 1024 * 1024
MAX_EXAMPLE_BYTES = 16 * 1024 * 1024
CODE = "python_function"
"""The flavour that every MLflow folder has: Python that loads the others, or a pickle of its own."""
PATHS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("data",),
    "tensorflow": ("saved_model_dir", "data"),
    "pytorch": ("model_data", "data"),
    "sklearn": ("pickled_model", "data"),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "keras": ("data",),
}
"""Flavours that can be served, the best first, and where each names its file."""
PICKLE = "pickle"
"""The format of an estimator that only its own code can load, in a jail."""
TORCH = {"exported": "torch_export", "script": "torchscript"}
INSTEAD: Mapping[str, str] = {
    "onnx": "Log it again with `mlflow.onnx`.",
    "pytorch": 'Log it with `serialization_format="pt2"`, or as ONNX with `mlflow.onnx`.',
    "tensorflow": "Log a `tf.Module`, or publish the folder that `model.export('folder')` writes.",
    "keras": "Publish the folder that `model.export('folder')` writes.",
    "sklearn": 'Log it with `serialization_format="skops"`, or as ONNX with `mlflow.onnx`.',
    "xgboost": "Log the booster itself, as JSON or UBJSON.",
    "lightgbm": "Log the booster itself: `mlflow.lightgbm.log_model(model.booster_, …)`.",
}
DATATYPES: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "str": "BYTES", "object": "BYTES",
}  # fmt: skip
PROVENANCE = ("mlflow_version", "run_id", "model_uuid", "model_id", "utc_time_created")
MAX_TEXT_CHARS = 200


class _Flavors(msgspec.Struct, frozen=True):
    """What is read of `MLmodel`; the rest is not looked at."""

    flavors: Mapping[str, Mapping[str, Any]]
    signature: Mapping[str, Any] = {}
    saved_input_example_info: Mapping[str, Any] = {}
    mlflow_version: str = ""
    run_id: str = ""
    model_uuid: str = ""
    model_id: str = ""
    utc_time_created: str = ""


class _TensorType(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]


class _Input(msgspec.Struct, frozen=True, rename="kebab"):
    """A column (`type`, `name`), or a tensor."""

    type: str
    name: str | int | None = None
    tensor_spec: _TensorType | None = None


def read_mlflow(folder: Path, allowed: Collection[str] = ()) -> Description | None:
    """What the folder's `MLmodel` says, or None without one; of formats that run code only those that are `allowed`.

    PublishError: manifest_invalid (no YAML, or not MLflow's), archive_unsafe (a path that leads outside),
    model_unreadable (a file is missing), format_unknown (no flavour that is known), format_not_allowed (Python, or a
    pickle that is not an estimator of scikit-learn or not allowed).
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    said = _read(path)
    flavour = _choose(said.flavors)
    form, entry = _served(folder, flavour, said.flavors[flavour], allowed)
    inputs = _inputs(said.signature)
    tensors = tuple(_completion(each.tensor_spec, each.name) for each in inputs if each.tensor_spec is not None)
    columns = tuple(str(each.name) for each in inputs if each.tensor_spec is None and each.name is not None)
    told = {"mlflow_flavor": flavour, **{name: getattr(said, name) for name in PROVENANCE}}
    return Description(
        form,
        entry,
        columns=columns if len(columns) == len(inputs) else (),
        inputs=tensors,
        example=_example(folder, said.saved_input_example_info),
        provenance={name: text[:MAX_TEXT_CHARS] for name, text in told.items() if text},
    )


def _read(path: Path) -> _Flavors:
    if path.stat().st_size > MAX_BYTES:
        raise _invalid(f"it is larger than {MAX_BYTES} bytes.")
    try:
        found = read_yaml(path.read_bytes())
        if isinstance(found, dict):
            # `signature: null` and its like come as text.
            found = {name: value for name, value in found.items() if value not in ("", "null", "~")}
        return msgspec.convert(found, _Flavors)
    except ImportError:
        raise extra_missing("MLflow", "mlflow") from None
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise _invalid(str(error)[:200] or "it is nested too deeply.") from None


def _invalid(why: str, field: str = MANIFEST) -> PublishError:
    return PublishError(
        "manifest_invalid",
        f"`{MANIFEST}` is wrong: {why}",
        field=field,
        expected="a description of a model as MLflow writes it",
        got=why,
    )


def _choose(flavours: Mapping[str, Any]) -> str:
    for flavour in PATHS:
        if flavour in flavours:
            return flavour
    others = [name[:40] for name in flavours if name != CODE]
    if others:
        raise PublishError(
            "format_unknown",
            f"The MLflow flavour `{others[0]}` cannot be served here. Log the model with one of "
            f"{', '.join(PATHS)} as well.",
            field=f"{MANIFEST}.flavors",
            expected=list(PATHS),
            got=others[:10],
        )
    raise not_spoken(
        f"{MANIFEST}.flavors",
        f"`{CODE}` alone (Python code and pickles)",
        "Log the model with one of the flavours " + ", ".join(PATHS) + ".",
    )


def _served(folder: Path, flavour: str, stated: Mapping[str, Any], allowed: Collection[str]) -> tuple[str, str]:
    """Format and entry of a flavour."""
    field = next((key for key in PATHS[flavour] if key in stated), PATHS[flavour][0])
    place = f"{MANIFEST}.flavors.{flavour}.{field}"
    path = _inside(folder, str(stated.get(field, "")), place)
    if flavour == "pytorch":
        return _torch(folder, path, place)
    if flavour in ("tensorflow", "keras"):
        return _tensorflow(folder, path, place, flavour)
    if not path.is_file():
        raise _missing(path.relative_to(folder).as_posix(), place)
    return _form(path, place, flavour, allowed), path.relative_to(folder).as_posix()


def _form(path: Path, place: str, flavour: str, allowed: Collection[str]) -> str:
    """The format of a flavour's one file."""
    if not is_pickle(path):
        # LightGBM's scikit-learn classes are logged as skops files.
        return "sklearn" if is_skops(path) else flavour
    if flavour != "sklearn":
        raise not_spoken(place, f"a pickle (`{path.name[:80]}`)", INSTEAD[flavour])
    if PICKLE not in allowed:
        remedy = f"{INSTEAD[flavour]} {leave(PICKLE)}"
        raise not_spoken(place, f"a pickle (`{path.name[:80]}`)", remedy)
    return PICKLE


def _inside(folder: Path, stated: str, place: str) -> Path:
    """The path, if it cannot lead outside; PublishError("archive_unsafe")."""
    if not stated:
        raise _invalid(f"`{place}` names no file.", place)
    return folder / check_path(stated.removeprefix("./").rstrip("/"))


def _torch(folder: Path, path: Path, place: str) -> tuple[str, str]:
    """The one archive of a program below the folder that `mlflow.pytorch` writes."""
    if not path.exists():
        raise _missing(path.relative_to(folder).as_posix(), place)
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    kinds = {each: TORCH[kind] for each in files if (kind := kind_of(each)) in TORCH}
    if len(kinds) != 1:
        raise not_spoken(place, "no program of PyTorch but a pickle", INSTEAD["pytorch"])
    ((entry, form),) = kinds.items()
    return form, entry.relative_to(folder).as_posix()


def _tensorflow(folder: Path, path: Path, place: str, flavour: str) -> tuple[str, str]:
    """The SavedModel in the folder that is named, or in its `model`."""
    if not path.exists():
        raise _missing(path.relative_to(folder).as_posix(), place)
    for each in (path / USUAL, path / "model" / USUAL):
        if each.is_file():
            return "tensorflow", each.relative_to(folder).as_posix()
    raise not_spoken(place, "a file of Keras, which may hold code", INSTEAD[flavour])


def _missing(name: str, place: str) -> PublishError:
    return PublishError(
        "model_unreadable",
        f"`{MANIFEST}` names `{name[:120]}`, which is not in the folder.",
        field=place,
        expected="a file of the folder",
        got=name[:120],
    )


def _inputs(signature: Mapping[str, Any]) -> tuple[_Input, ...]:
    """The inputs of the signature, which is JSON in a YAML text."""
    text = signature.get("inputs")
    if text in (None, "", "null", "~"):
        return ()
    try:
        return msgspec.json.decode(str(text), type=tuple[_Input, ...])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _invalid(str(error)[:200], f"{MANIFEST}.signature.inputs") from None


def _completion(tensor: _TensorType, name: str | int | None) -> TensorCompletion:
    named = "" if name is None else str(name)
    return TensorCompletion(named, DATATYPES.get(tensor.dtype), tensor.shape)


def _example(folder: Path, info: Mapping[str, Any]) -> bytes | None:
    """The example as a scoring request. `serving_input_path` is one already; `artifact_path`, of older versions, is a
    frame in pandas' orient "split", or a request. Rows with a missing value are left out: JSON has no NaN."""
    stated = next((str(info[key]) for key in ("serving_input_path", "artifact_path") if info.get(key)), "")
    if not stated or stated in ("null", "~"):
        return None
    place = f"{MANIFEST}.saved_input_example_info"
    path = _inside(folder, stated, place)
    if not path.is_file():
        raise _missing(stated, place)
    if path.stat().st_size > MAX_EXAMPLE_BYTES:
        return None
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _invalid(f"its example `{stated[:80]}` is no JSON.", place) from None
    return _as_request(found)


def _as_request(found: Any) -> bytes | None:
    if not isinstance(found, dict):
        return None
    request = {"dataframe_split": found} if found.keys() >= {"columns", "data"} else found
    frame = request.get("dataframe_split")
    if isinstance(frame, dict) and isinstance(frame.get("data"), list):
        rows = [row for row in frame["data"] if not isinstance(row, list) or None not in row]
        if not rows:
            return None
        request = {"dataframe_split": {**frame, "data": rows}}
    return msgspec.json.encode(request)
