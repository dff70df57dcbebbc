"""Whether what scikit-learn's compiled code reads in an estimator is there.

skops trusts types, not what they hold: vectors that are shorter than others say are read beyond their end, and a
prediction tells what lies there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

WIDE = ("_fit_X", "cluster_centers_", "centroids_", "subcluster_centers_", "support_vectors_")
"""Matrices that compiled code reads with as many columns as the rows of a request have."""


def is_sound(part: Any) -> bool:
    """Whether an estimator's own arrays are as large as its compiled code takes them for; True for what has none."""
    own = getattr(part, "__dict__", {})
    return _is_as_wide(own) and _has_a_label_each(own) and (not _is_libsvm(part) or _is_machine(part, own))


def _is_as_wide(own: dict[str, Any]) -> bool:
    features = own.get("n_features_in_")
    shapes = [own[name].shape for name in WIDE if hasattr(own.get(name), "shape")]
    return all(isinstance(features, int | np.integer) and shape[1:] == (features,) for shape in shapes)


def _has_a_label_each(own: dict[str, Any]) -> bool:
    """The neighbours' answers are looked up by the number of the neighbour."""
    rows, answers = (getattr(own.get(name), "shape", None) for name in ("_fit_X", "_y"))
    return rows is None or answers is None or answers[:1] == rows[:1]


def _is_libsvm(part: Any) -> bool:
    from sklearn.svm._base import BaseLibSVM

    return isinstance(part, BaseLibSVM)


def _is_machine(part: Any, own: dict[str, Any]) -> bool:
    """A support vector machine of dense rows, whose numbers are as many as its vectors and classes ask for."""
    vectors: Any = own.get("support_vectors_")
    counts: Any = own.get("_n_support")
    if own.get("_sparse") is not False or "_impl" in own or not _are_arrays(vectors, counts):
        return False
    many = len(vectors)
    several = part._impl in ("c_svc", "nu_svc")
    classes = len(counts) if several else 2
    pairs = classes * (classes - 1) // 2
    names = ("_dual_coef_", "_intercept_", "_probA", "_probB", "support_")
    if not _are_arrays(*(own.get(name) for name in names)):
        return False
    coefficients, intercepts, told, more, indices = (own[name] for name in names)
    return (
        bool((counts >= 0).all())
        and int(counts.sum() if several else counts[0]) == many
        and coefficients.shape == (classes - 1, many)
        and len(intercepts) == pairs
        and all(len(each) in (0, pairs) for each in (told, more))
        and len(indices) == many
        and own.get("kernel") != "precomputed"  # its vectors are numbers of columns
    )


def _are_arrays(*values: Any) -> bool:
    return all(isinstance(each, np.ndarray) and each.dtype.kind in "fi" for each in values)
