"""What both libraries of boosted trees share: the signature that their answers get, and the loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from modelyard.core.errors import ModelError
from modelyard.core.types import DATATYPES, Array, Signature, Tensors, TensorSpec
from modelyard.runtimes.refusals import check_spec, reason

INPUT, LABEL, PROBABILITIES, VALUE = "X", "label", "probabilities", "value"

Predict = Callable[[Array], Array]
"""Rows to what the library says of them: a number a row, or a row of numbers a row."""


def boosted_signature(datatype: str, features: int, columns: Sequence[str], classes: int, values: int) -> Signature:
    """One matrix in. Out: `label` and `probabilities` where there are `classes` (2 or more), as ONNX classifiers
    give them; else `value`, a matrix if there are several `values` a row. PublishError for names that cannot be
    served."""
    given = check_spec("inputs[0]", TensorSpec(INPUT, datatype, (-1, features), columns=tuple(columns)))
    if classes:
        labels = tuple(map(str, range(classes)))
        scores = TensorSpec(PROBABILITIES, datatype, (-1, classes), labels=labels)
        return Signature((given,), (TensorSpec(LABEL, "INT64", (-1,)), check_spec("outputs[1]", scores)))
    shape = (-1, values) if values > 1 else (-1,)
    return Signature((given,), (check_spec("outputs[0]", TensorSpec(VALUE, datatype, shape)),))


class BoostedModel:
    """core.types.LoadedModel over a library's predict. A classifier's label is the class of the highest probability,
    the lowest of equals, as in the libraries' own classifiers."""

    def __init__(self, signature: Signature, predict: Predict) -> None:
        self.signature = signature
        self._predict: Predict | None = predict
        self._input = signature.inputs[0].name
        self._features = signature.inputs[0].shape[1]
        self._names = tuple(spec.name for spec in signature.outputs)
        self._datatype = DATATYPES[signature.inputs[0].datatype]

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port."""
        if self._predict is None:
            raise ModelError("model_failed", "The model is no longer in memory.")
        rows = inputs[self._input]
        if rows.ndim != 2 or rows.shape[1] != self._features:
            # Not left to the library: one reads past the end of a row that is too short.
            wanted = f"[-1, {self._features}]"
            raise ModelError("model_failed", f"The model takes rows of the shape {wanted}, not {list(rows.shape)}.")
        try:
            scores = np.asarray(self._predict(rows), dtype=self._datatype)
        except Exception as error:
            raise ModelError("model_failed", f"The model failed on this input: {reason(error)}") from None
        found = self._classified(scores) if LABEL in self._names else {VALUE: scores}
        return {name: found[name] for name in outputs or self._names}

    def compact(self, inputs: Tensors) -> None:
        """See the port: the libraries keep nothing that grows with the rows of a run."""

    def close(self) -> None:
        """Lets go of the model; a run that holds it ends first."""
        self._predict = None

    def _classified(self, scores: Array) -> dict[str, Array]:
        if scores.ndim > 1:
            return {LABEL: scores.argmax(axis=1).astype(np.int64), PROBABILITIES: scores}
        matrix = np.empty((len(scores), 2), dtype=scores.dtype)
        np.subtract(1, scores, out=matrix[:, 0])
        matrix[:, 1] = scores
        return {LABEL: (scores > matrix[:, 0]).astype(np.int64), PROBABILITIES: matrix}


def is_tree(left: Array, right: Array, nodes: int) -> bool:
    """Whether links between `nodes` nodes, of which the first is the root, end: each leads to a node that there is,
    to no node twice, and never to the root. A walk down such links can neither leave the nodes nor go in a circle.
    """
    links = np.concatenate((left, right))
    inside = not links.size or bool((links > 0).all() and (links < nodes).all())
    return inside and len(np.unique(links)) == len(links)
