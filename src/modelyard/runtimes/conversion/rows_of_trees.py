"""Rows that a model of trees tells apart: drawn from where its thresholds lie, for a comparison without a sample. Rows
around zero would all end in the same leaves of trees that were grown on other numbers, and could show no difference."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from modelyard.core.types import Array

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
MARGIN = 0.1
"""Of the thresholds' span, beyond the least and the greatest of them."""


def rows_of_trees(content: bytes, width: int, count: int, seed: int) -> Array:
    """`count` rows of FP64 for the trees of an ONNX file, each number even between the least and the greatest threshold
    of its column and a little beyond; 0 in columns without one. No rows where there are no trees."""
    spans: dict[int, tuple[float, float]] = {}
    for column, value in _thresholds(content):
        low, high = spans.get(column, (value, value))
        spans[column] = (min(low, value), max(high, value))
    if not spans:
        return np.empty((0, width))
    draw, rows = np.random.default_rng(seed), np.zeros((count, width))
    for column, (low, high) in spans.items():
        beyond = MARGIN * (high - low) or abs(low) * MARGIN or 1.0
        rows[:, column] = draw.uniform(low - beyond, high + beyond, count)
    return rows


def _thresholds(content: bytes) -> Iterator[tuple[int, float]]:
    """Column and value of each node that asks for one. Sources: ONNX, ai.onnx.ml operators, TreeEnsemble*."""
    import onnx
    from onnx import helper, numpy_helper

    for node in onnx.load_from_string(content).graph.node:
        if node.op_type not in TREES:
            continue
        known = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        values = known.get("nodes_values", ())
        if "nodes_values_as_tensor" in known:
            values = numpy_helper.to_array(known["nodes_values_as_tensor"]).tolist()
        for mode, column, value in zip(known["nodes_modes"], known["nodes_featureids"], values, strict=True):
            if mode != b"LEAF" and math.isfinite(value):
                yield column, float(value)
