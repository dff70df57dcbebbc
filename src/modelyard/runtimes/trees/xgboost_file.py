"""Reading what an XGBoost model says of itself, and following its trees before native code does.

What is followed is the JSON that the library writes again from its own memory, so that two readers of one file cannot
differ. Source: XGBoost, `doc/model.schema` and `include/xgboost/tree_model.h`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from modelyard.core.errors import PublishError
from modelyard.core.types import Array
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import not_spoken, unreadable
from modelyard.runtimes.trees.boosted import boosted_signature, is_tree

KIND = "XGBoost"
BINARY = frozenset({"binary:logistic"})
MANY = frozenset({"multi:softprob", "multi:softmax"})
"""Objectives of classifiers with probabilities."""
CATEGORICAL = 1
"""The `split_type` of a node whose categories are a stretch of the tree's list."""


class _TreeSizes(msgspec.Struct, frozen=True):
    size_leaf_vector: str = "1"


class _Tree(msgspec.Struct, frozen=True):
    tree_param: _TreeSizes
    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_type: list[int] = []
    categories: list[int] = []
    categories_nodes: list[int] = []
    categories_segments: list[int] = []
    categories_sizes: list[int] = []
    leaf_weights: list[float] = []


class _Categories(msgspec.Struct, frozen=True):
    enc: list[Any] = []


class _Trees(msgspec.Struct, frozen=True):
    trees: list[_Tree] = []
    tree_info: list[int] = []
    iteration_indptr: list[int] | None = None
    cats: _Categories = _Categories()
    weights: list[float] | None = None


class _Booster(msgspec.Struct, frozen=True):
    name: str
    model: _Trees | None = None
    gbtree: Any = None
    weight_drop: list[float] | None = None


class _Sizes(msgspec.Struct, frozen=True):
    num_class: str
    num_feature: str
    num_target: str = "1"


class _Objective(msgspec.Struct, frozen=True):
    name: str


class _Learner(msgspec.Struct, frozen=True):
    gradient_booster: _Booster
    learner_model_param: _Sizes
    objective: _Objective
    feature_names: list[str] = []


class _Model(msgspec.Struct, frozen=True):
    learner: _Learner
    version: list[int] = []


def objective_of(booster: Any) -> tuple[str, bool]:
    """The name of the objective, and whether the model is linear instead of trees."""
    learner = json.loads(booster.save_config())["learner"]
    return learner["objective"]["name"], learner["gradient_booster"]["name"] == "gblinear"


def inspect_xgboost(booster: Any, entry: str, suffix: str) -> Inspection:
    """What the loaded model takes and gives; PublishError."""
    model = msgspec.json.decode(booster.save_raw(raw_format="json"), type=_Model)
    learner, sizes = model.learner, model.learner.learner_model_param
    features, classes, targets = int(sizes.num_feature), int(sizes.num_class), int(sizes.num_target)
    groups = max(1, classes, targets)
    _check_booster(learner.gradient_booster, features, groups)
    objective = learner.objective.name
    told_apart = 2 if objective in BINARY and groups == 1 else classes if objective in MANY else 0
    if objective in MANY and classes < 2:
        raise unreadable(KIND, f"its objective `{objective}` needs classes, and it states {classes}.", got=classes)
    signature = boosted_signature("FP32", features, learner.feature_names, told_apart, groups)
    said = {
        "objective": objective,
        "booster": learner.gradient_booster.name,
        "xgboost": ".".join(map(str, model.version)),
    }
    return Inspection("xgboost", entry, signature, {name: text[:200] for name, text in said.items()}, suffix)


def _check_booster(booster: _Booster, features: int, groups: int) -> None:
    held = msgspec.convert(booster.gbtree["model"], _Trees) if booster.gbtree else booster.model
    if held is None:
        raise not_spoken("model", f"a booster `{booster.name[:40]}`", "Train with gbtree, dart or gblinear.")
    if held.weights is not None:
        if len(held.weights) != (features + 1) * groups:
            raise unreadable(KIND, "its weights are not as many as its features.", got=len(held.weights))
        return
    if not held.trees:
        raise PublishError("model_empty", "The model is empty: it holds no trees.", field="model")
    if held.cats.enc:
        raise not_spoken(
            "model", "trained on categories of a data frame, which come as text", "Train it on their codes."
        )
    _check_counts(held, groups, booster.weight_drop)
    for number, tree in enumerate(held.trees):
        if not _is_sound(tree, features, groups):
            raise unreadable(KIND, f"tree {number} leads outside itself.", got=f"tree {number}")


def _check_counts(held: _Trees, groups: int, weights: Sequence[float] | None) -> None:
    """Each tree adds to a score that there is; the rounds are stretches of the trees; dart has a weight a tree."""
    count = len(held.trees)
    rounds = held.iteration_indptr or [0, count]
    good = (
        len(held.tree_info) == count
        and all(0 <= group < groups for group in held.tree_info)
        and rounds[0] == 0
        and rounds[-1] == count
        and rounds == sorted(rounds)
        and (weights is None or len(weights) == count)
    )
    if not good:
        raise unreadable(KIND, "its numbers of classes, rounds and trees contradict each other.", got=f"{count} trees")


def _is_sound(tree: _Tree, features: int, groups: int) -> bool:
    """Whether every walk down the tree ends at a leaf, and looks at features and categories that there are."""
    left, right, split = (np.array(a, np.int64) for a in (tree.left_children, tree.right_children, tree.split_indices))
    if not len(left) or {len(right), len(split)} != {len(left)}:
        return False
    inner = left != -1
    looked_at = split[inner]
    inside = bool((looked_at >= 0).all() and (looked_at < features).all()) and _are_leaves(tree, right[~inner], groups)
    return inside and is_tree(left[inner], right[inner], nodes=len(left)) and _are_sets_sound(tree, inner)


def _are_leaves(tree: _Tree, links: Array, groups: int) -> bool:
    """A leaf of several numbers has their place where another node has its right child."""
    size = int(tree.tree_param.size_leaf_vector)
    if size <= 1 or not tree.leaf_weights:
        return size <= max(1, groups) and bool((links == -1).all())
    return size == groups and bool((links >= 0).all() and ((links + 1) * size <= len(tree.leaf_weights)).all())


def _are_sets_sound(tree: _Tree, inner: Array) -> bool:
    kinds = np.array(tree.split_type or [0] * len(inner), np.int64)
    nodes, starts, sizes = tree.categories_nodes, tree.categories_segments, tree.categories_sizes
    if len(kinds) != len(inner) or not len(nodes) == len(starts) == len(sizes):
        return False
    chosen = set(np.flatnonzero((kinds == CATEGORICAL) & inner).tolist())
    stretches = zip(starts, sizes, strict=True)
    fits = all(start >= 0 and size >= 0 and start + size <= len(tree.categories) for start, size in stretches)
    return fits and chosen <= set(nodes) and all(category >= 0 for category in tree.categories)
