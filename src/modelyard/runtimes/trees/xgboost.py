"""XGBoost models as JSON or UBJSON.

The file is data, yet its trees are indices that native code follows without a check. So the publish check follows
them first: `xgboost_file.py`. Source of the format: XGBoost, `doc/model.schema`, "Introduction to Model IO".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import ModelyardError
from modelyard.core.types import Array
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import extra_missing, nonempty, only_one, reason, unreadable
from modelyard.runtimes.trees.boosted import BoostedModel, Predict
from modelyard.runtimes.trees.ubjson import is_whole
from modelyard.runtimes.trees.xgboost_call import predict_dense
from modelyard.runtimes.trees.xgboost_file import inspect_xgboost, objective_of

KIND = "XGBoost"
HEAD_BYTES = 256
KEY = b"learner"
_JSON = re.compile(rb'\s*\{\s*"(?:learner"\s*:|version"\s*:\s*\[[\d,\s]*\]\s*,\s*"learner"\s*:)')
_UBJSON = re.compile(rb"\{(?:L\0{7}|l\0{3}|I\0|[iU])\x07learner\{|\{(?:L\0{7}|l\0{3}|I\0|[iU])\x07version\[")
_BEGINNINGS = (b'{"' + KEY + b'":{', b"{L\0\0\0\0\0\0\0\x07" + KEY + b"{")
LEAST_BYTES = 5
"""A beginning that was cut off is known from so many bytes."""


class XgboostRuntime:
    """The port `models.ports.Runtime` for XGBoost."""

    format = "xgboost"

    def detect(self, folder: Path) -> str | None:
        """The one file that begins like XGBoost's JSON or UBJSON, cut off or not."""
        return only_one(KIND, folder, _begins_like_xgboost)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Signature and provenance, once its trees are trees; PublishError."""
        path = nonempty(folder / entry)
        booster = read_booster(path, 1)
        try:
            return inspect_xgboost(booster, entry, ".json" if _is_json(path) else ".ubj")
        except ModelyardError:
            raise
        except Exception as error:
            raise unreadable(KIND, reason(error)) from None

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> BoostedModel:
        """The model with `options["threads"]` threads; PublishError."""
        booster = read_booster(nonempty(folder / manifest.entry), int(options.get("threads", 1)))
        return BoostedModel(manifest.signature, _predict_with(booster))


def _predict_with(booster: Any) -> Predict:
    """What the library's own scikit-learn class would call: the rounds up to the best one, where training noted one."""
    import xgboost

    name, linear = objective_of(booster)
    best = booster.attr("best_iteration")
    rounds = (0, 0) if best is None or linear else (0, int(best) + 1)
    # Its own answer would be the class alone.
    margin = name == "multi:softmax"

    def weighed(rows: Array) -> Array:
        scores = booster.predict(xgboost.DMatrix(rows), output_margin=margin, validate_features=False)
        return np.asarray(scores)

    scores_of: Predict = weighed if linear else predict_dense(booster, rounds, margin)
    return (lambda rows: _softmax(scores_of(rows))) if margin else scores_of


def _softmax(margins: Array) -> Array:
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def read_booster(path: Path, threads: int) -> Any:
    """The model as the library holds it, with so many threads; PublishError."""
    try:
        import xgboost
    except ImportError:
        raise extra_missing(KIND, "xgboost") from None
    content = path.read_bytes()
    if not _is_json(path) and not is_whole(content):
        raise unreadable(KIND, "it is cut off or damaged.", got=f"{len(content)} bytes")
    # It writes warnings to standard error by itself; what matters comes as an exception.
    xgboost.set_config(verbosity=0)
    try:
        # From memory: the library then looks at the content, where it would go by a file's name.
        return xgboost.Booster(params={"nthread": threads, "verbosity": 0}, model_file=bytearray(content))
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_json(path: Path) -> bool:
    return _head(path).lstrip()[1:].lstrip()[:1] == b'"'


def _begins_like_xgboost(path: Path) -> bool:
    head = _head(path)
    if _JSON.match(head) or _UBJSON.match(head):
        return True
    return len(head) >= LEAST_BYTES and any(beginning.startswith(head) for beginning in _BEGINNINGS)
