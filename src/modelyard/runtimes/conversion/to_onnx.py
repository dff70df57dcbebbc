"""scikit-learn by skl2onnx, LightGBM and XGBoost by onnxmltools: one float matrix `X` in, no maps out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import CommandError, PublishError
from modelyard.core.types import Signature
from modelyard.runtimes.refusals import extra_missing, reason
from modelyard.runtimes.trees.boosted import INPUT

TARGET_OPSET = 15
"""The newest that onnxmltools writes; what trees and linear models need is older."""


def to_onnx(form: str, path: Path, signature: Signature, options: Mapping[str, Any]) -> bytes:
    """The model as ONNX, with the names of its columns and classes; PublishError("runtime_missing"),
    CommandError("conversion_unsupported") for a format or a model that has no form in ONNX."""
    convert = CONVERTERS.get(form)
    if convert is None:
        raise unsupported(f"Models of the format `{form}` cannot be converted.", list(CONVERTERS), form)
    features = int(signature.inputs[0].shape[1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = convert(path, features, options)
    except ImportError:
        raise extra_missing("Converted", "convert") from None
    except (PublishError, MemoryError):
        raise
    except Exception as error:
        why = f"The model has no form in ONNX: {reason(error)}"
        raise unsupported(why, "a model that the exporter knows", form) from None
    # The exporter adds decision values where the library has no probabilities, by that name.
    del model.graph.output[len(signature.outputs) :]
    _vary(model)
    _name(model, signature)
    return bytes(model.SerializeToString())


def unsupported(why: str, expected: Any, got: str) -> CommandError:
    """There is no way from this model to ONNX."""
    return CommandError("conversion_unsupported", why, field="SOURCE", expected=expected, got=got)


def _vary(model: Any) -> None:
    """Every output has as many rows as there are inputs; the exporter of LightGBM states one label."""
    for output in model.graph.output:
        rows = output.type.tensor_type.shape.dim[0]
        rows.Clear()
        rows.dim_param = "N"


def _name(model: Any, signature: Signature) -> None:
    """Names in the metadata, where the ONNX runtime looks for them (runtimes/onnx_file.py)."""
    labels = next((spec.labels for spec in signature.outputs if spec.labels), ())
    for key, names in (("columns", signature.inputs[0].columns), ("labels", labels)):
        if names:
            pair = model.metadata_props.add()
            pair.key, pair.value = key, json.dumps(list(names))


def _from_sklearn(path: Path, features: int, options: Mapping[str, Any]) -> Any:
    from skl2onnx import to_onnx as skl_to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.base import is_classifier

    from modelyard.runtimes.sklearn import read_estimator

    estimator = read_estimator(path, options)
    scored = is_classifier(estimator) and hasattr(estimator, "predict_proba")
    plain = {"zipmap": False} if scored else None
    kinds = [(INPUT, FloatTensorType([None, features]))]
    return skl_to_onnx(estimator, initial_types=kinds, options=plain, target_opset=TARGET_OPSET)


def _from_lightgbm(path: Path, features: int, options: Mapping[str, Any]) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    from modelyard.runtimes.trees.lightgbm import read_booster

    kinds = [(INPUT, FloatTensorType([None, features]))]
    return convert_lightgbm(read_booster(path), initial_types=kinds, zipmap=False, target_opset=TARGET_OPSET)


def _from_xgboost(path: Path, features: int, options: Mapping[str, Any]) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    from modelyard.runtimes.trees.xgboost import read_booster

    booster = read_booster(path, 1)
    # The exporter knows features by their numbers alone.
    booster.feature_names = None
    kinds = [(INPUT, FloatTensorType([None, features]))]
    return convert_xgboost(booster, initial_types=kinds, target_opset=TARGET_OPSET)


CONVERTERS: Mapping[str, Callable[[Path, int, Mapping[str, Any]], Any]] = {
    "sklearn": _from_sklearn,
    "lightgbm": _from_lightgbm,
    "xgboost": _from_xgboost,
}
"""Formats that can be converted."""
