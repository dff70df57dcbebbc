"""XGBoost's own prediction, called for what it is given here: rows of FP32, in one block.

`Booster.inplace_predict` looks for a dozen kinds of data frames, and builds a class for each answer: 100 of the 166 µs
that a row takes. The function of the library behind it is public: XGBoost, C API, `XGBoosterPredictFromDense`.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from modelyard.core.types import Array

_Sizes, _Floats = ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_float)
_NO_MATRIX = ctypes.c_void_p()


def predict_dense(booster: Any, rounds: tuple[int, int], margin: bool) -> Callable[[Array], Array]:
    """What `inplace_predict` gives for a matrix of rows, bit for bit, as a copy: the library's own buffer is that of
    its next run."""
    from xgboost import core

    library, check = getattr(core, "_LIB", None), getattr(core, "_check_call", None)
    handle = getattr(booster, "handle", None)
    arguments = json.dumps(
        {
            "type": int(margin), "training": False, "iteration_begin": rounds[0], "iteration_end": rounds[1],
            "missing": math.nan, "strict_shape": False, "cache_id": 0,
        }
    ).encode()  # fmt: skip

    def usual(rows: Array) -> Array:
        kind = "margin" if margin else "value"
        scores = booster.inplace_predict(rows, iteration_range=rounds, predict_type=kind, validate_features=False)
        return np.asarray(scores)

    if library is None or check is None or handle is None:
        return usual

    def predict(rows: Array) -> Array:
        if not len(rows):
            return usual(rows)
        block = np.ascontiguousarray(rows, dtype="<f4")
        sizes, dims, scores = _Sizes(), ctypes.c_uint64(), _Floats()
        places = [ctypes.byref(each) for each in (sizes, dims, scores)]
        check(library.XGBoosterPredictFromDense(handle, _described(block), arguments, _NO_MATRIX, *places))
        found = np.empty(sizes[: dims.value], dtype=np.float32)
        ctypes.memmove(found.ctypes.data, scores, found.nbytes)
        return found

    return predict


def _described(block: Array) -> bytes:
    """NumPy's array interface, as JSON."""
    rows, columns = block.shape
    return b'{"data": [%d, true], "shape": [%d, %d], "strides": null, "typestr": "<f4", "version": 3}' % (
        block.ctypes.data, rows, columns,
    )  # fmt: skip
