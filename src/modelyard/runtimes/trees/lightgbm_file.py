"""Reading what a LightGBM text says of itself, and following its trees before native code does.

What is followed is the text that the library writes again from its own memory, so that two readers of one file cannot
differ. Source: LightGBM, `src/io/tree.cpp` (`Tree::ToString`, `Tree::GetLeaf`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import PublishError
from modelyard.core.types import Array
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import not_spoken, unreadable
from modelyard.runtimes.trees.boosted import boosted_signature, is_tree

KIND = "LightGBM"
SCORED: Mapping[str, int] = {"binary": 2, "multiclass": 0, "softmax": 0, "multiclassova": 0, "multiclass_ova": 0,
                             "ova": 0, "ovr": 0}  # fmt: skip
"""Objectives of classifiers, and how many classes they have; 0: as many as the model says."""
CATEGORICAL = 1
"""The bit of a node's `decision_type` that makes its threshold the number of a set of categories."""
PANDAS = "pandas_categorical:"

Fields = Mapping[str, str]


def check_complete(path: Path) -> None:
    """PublishError("model_unreadable") for a text that was cut off: the library takes what is left of one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise unreadable(KIND, "it is no text in UTF-8.") from None
    said = [line for line in lines[-2:] if line.startswith(PANDAS)]
    rest = [line for line in lines if line and not line.startswith(PANDAS)]
    if "end of trees" not in lines or not rest or rest[-1] != "end of parameters":
        raise unreadable(KIND, "it is cut off.", got=f"{path.stat().st_size} bytes")
    try:
        json.loads(said[0].removeprefix(PANDAS) if said else "null")
    except ValueError:
        raise unreadable(KIND, "its last line is cut off.", got=f"{path.stat().st_size} bytes") from None


def inspect_lightgbm(booster: Any, entry: str) -> Inspection:
    """What the loaded model takes and gives; PublishError."""
    if booster.pandas_categorical:
        raise not_spoken(
            "model", "trained on categories of pandas, which come as text", "Train it on their codes (`.cat.codes`)."
        )
    head, *trees = _blocks(booster.model_to_string(num_iteration=-1))
    if not trees:
        raise PublishError("model_empty", "The model is empty: it holds no trees.", field="model")
    features = int(head["max_feature_idx"]) + 1
    groups = int(head["num_tree_per_iteration"])
    classes = _classes(head, groups)
    _check_groups(head, groups, len(trees))
    for number, tree in enumerate(trees):
        if not _is_sound(tree, features):
            raise unreadable(KIND, f"tree {number} leads outside itself.", got=f"tree {number}")
    names = head.get("feature_names", "").split(" ")
    columns = names if names != [f"Column_{i}" for i in range(features)] and len(names) == features else ()
    said = {
        "objective": head.get("objective", "custom"),
        "trees": str(len(trees)),
        "text_version": head.get("version", ""),
    }
    signature = boosted_signature("FP64", features, columns, classes, groups)
    return Inspection("lightgbm", entry, signature, {name: text[:200] for name, text in said.items()}, ".txt")


def _blocks(text: str) -> Iterator[Fields]:
    """The head, and each tree, as names and texts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line == "end of trees":
            break
        if line.startswith("Tree="):
            yield found
            found = {}
        name, equals, value = line.partition("=")
        if equals:
            found[name] = value
    yield found


def _classes(head: Fields, groups: int) -> int:
    """How many classes the model tells apart; 0 for anything but a classifier."""
    name, *parameters = head.get("objective", "custom").split(" ")
    if name not in SCORED:
        return 0
    stated = dict(parameter.partition(":")[::2] for parameter in parameters)
    if SCORED[name]:
        return SCORED[name] if groups == 1 else _miscounted(groups)
    # The objective writes as many scores as it states into the room that the trees have.
    return groups if stated.get("num_class") == str(groups) and groups > 1 else _miscounted(groups)


def _check_groups(head: Fields, groups: int, trees: int) -> None:
    if groups < 1 or trees % groups or head.get("num_class") != str(groups):
        _miscounted(groups)


def _miscounted(groups: int) -> int:
    raise unreadable(KIND, "its numbers of classes and of trees contradict each other.", got=f"{groups} a round")


def _is_sound(tree: Fields, features: int) -> bool:
    """Whether every walk down the tree ends at a leaf, and looks at features and categories that there are."""
    leaves = int(tree["num_leaves"])
    if leaves < 1 or len(_numbers(tree, "leaf_value")) != leaves:
        return False
    if int(tree.get("is_linear", "0")) and not _is_linear_sound(tree, features, leaves):
        return False
    if leaves == 1:
        return True
    split, left, right = (_whole(tree, name) for name in ("split_feature", "left_child", "right_child"))
    if {len(split), len(left), len(right)} != {leaves - 1}:
        return False
    inner = (left[left >= 0], right[right >= 0])
    ends = ~np.concatenate((left[left < 0], right[right < 0]))
    inside = bool((ends < leaves).all() and (split >= 0).all() and (split < features).all())
    return inside and is_tree(*inner, nodes=leaves - 1) and _are_sets_sound(tree)


def _are_sets_sound(tree: Fields) -> bool:
    """The categories of a node are a stretch of one list; each stretch lies in it."""
    kinds = _whole(tree, "decision_type")
    chosen = _numbers(tree, "threshold")[(kinds & CATEGORICAL) != 0]
    sets = int(tree.get("num_cat", "0"))
    if not chosen.size:
        return True
    bounds, held = _whole(tree, "cat_boundaries"), _whole(tree, "cat_threshold")
    ordered = len(bounds) == sets + 1 and bounds[0] == 0 and bool((np.diff(bounds) >= 0).all())
    return ordered and bounds[-1] == len(held) and bool(((chosen >= 0) & (chosen < sets)).all())


def _is_linear_sound(tree: Fields, features: int, leaves: int) -> bool:
    counts, used = _whole(tree, "num_features"), _whole(tree, "leaf_features")
    counted = len(counts) == leaves and bool((counts >= 0).all()) and int(counts.sum()) == len(used)
    return counted and len(_numbers(tree, "leaf_coeff")) == len(used) and bool(((used >= 0) & (used < features)).all())


def _numbers(tree: Fields, name: str) -> Array:
    return np.array(tree.get(name, "").split(), dtype=np.float64)


def _whole(tree: Fields, name: str) -> Array:
    return np.array(tree.get(name, "").split(), dtype=np.int64)
