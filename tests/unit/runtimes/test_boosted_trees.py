"""LightGBM and XGBoost: every kind of model answers as its library does, and trees that lead astray are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_linnerud

from modelyard.core.errors import PublishError
from modelyard.models.manifest import Manifest
from modelyard.models.report import CheckOptions
from modelyard.runtimes import detect
from modelyard.runtimes.child import check_in_child
from modelyard.runtimes.trees.boosted import BoostedModel, boosted_signature
from modelyard.runtimes.trees.ubjson import is_whole
from modelyard.runtimes.trees.xgboost_call import predict_dense

CANCER, IRIS, DIABETES = (load(return_X_y=True) for load in (load_breast_cancer, load_iris, load_diabetes))
LINNERUD = load_linnerud(return_X_y=True)
QUIET = {"verbosity": -1, "num_threads": 1, "seed": 0}


def _load(folder: Path) -> BoostedModel:
    runtime, entry = detect(folder)
    found = runtime.inspect(folder, entry, {})
    model = runtime.load(folder, Manifest(found.format, entry, (), found.signature), {"threads": 1})
    assert isinstance(model, BoostedModel)
    return model


def _light(table: Any, **parameters: Any) -> Any:
    rows, target = table
    categories = parameters.pop("categorical_feature", "auto")
    data = lightgbm.Dataset(rows, target, categorical_feature=categories, params=QUIET)
    return lightgbm.train({**QUIET, **parameters}, data, 10)


def _scores(answers: dict[str, Any]) -> Any:
    """What the library's own `predict` gives: the probability of class 1 of two, else all there is."""
    if "value" in answers:
        return answers["value"]
    scores = answers["probabilities"]
    return scores[:, 1] if scores.shape[1] == 2 else scores


LIGHT: dict[str, tuple[Any, dict[str, Any]]] = {
    "binary": (CANCER, {"objective": "binary"}),
    "multiclass": (IRIS, {"objective": "multiclass", "num_class": 3}),
    "one against all": (IRIS, {"objective": "multiclassova", "num_class": 3}),
    "regression": (DIABETES, {"objective": "regression"}),
    "quantile": (DIABETES, {"objective": "quantile", "alpha": 0.9}),
    "poisson": (DIABETES, {"objective": "poisson"}),
    "cross entropy": (CANCER, {"objective": "cross_entropy"}),
    "forest": (CANCER, {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}),
    "dart": (CANCER, {"objective": "binary", "boosting": "dart"}),
    "linear trees": (DIABETES, {"objective": "regression", "linear_tree": True}),
    "categories": (DIABETES, {"objective": "regression", "categorical_feature": [1], "min_data_per_group": 1}),
}


@pytest.mark.parametrize("case", LIGHT)
def test_lightgbm_answers_as_itself(tmp_path: Path, case: str) -> None:
    """Every objective and booster, also with categories and linear leaves: exactly the booster's own answers."""
    (rows, target), parameters = LIGHT[case]
    rows = np.array(rows)
    if case == "categories":
        rows[:, 1] = (rows[:, 1] > 0) + 2 * (rows[:, 0] > 0)
    booster = _light((rows, target), **parameters)
    booster.save_model(tmp_path / "model.txt")
    loaded = _load(tmp_path)
    assert [spec.name for spec in loaded.signature.outputs] == (
        ["label", "probabilities"] if "binary" in str(parameters) or "multi" in str(parameters) else ["value"]
    )
    np.testing.assert_allclose(_scores(loaded.run({"X": rows}, ())), booster.predict(rows), rtol=1e-12)


def _boost(table: Any, rounds: int = 10, **parameters: Any) -> Any:
    rows, target = table
    return xgboost.train({"nthread": 1, "seed": 0, "verbosity": 0, **parameters}, xgboost.DMatrix(rows, target), rounds)


X: dict[str, tuple[Any, dict[str, Any]]] = {
    "logistic": (CANCER, {"objective": "binary:logistic"}),
    "softprob": (IRIS, {"objective": "multi:softprob", "num_class": 3}),
    "regression": (DIABETES, {"objective": "reg:squarederror"}),
    "poisson": (DIABETES, {"objective": "count:poisson"}),
    "raw logit": (CANCER, {"objective": "binary:logitraw"}),
    "hinge": (CANCER, {"objective": "binary:hinge"}),
    "dart": (CANCER, {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3}),
    "linear": (DIABETES, {"booster": "gblinear", "objective": "reg:squarederror"}),
    "several targets": (LINNERUD, {"objective": "reg:squarederror"}),
    "several targets a tree": (LINNERUD, {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"}),
    "parallel trees": (CANCER, {"objective": "binary:logistic", "num_parallel_tree": 3, "subsample": 0.5}),
}


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("case", X)
def test_xgboost_answers_as_itself(tmp_path: Path, case: str, suffix: str) -> None:
    """Every kind of booster and objective in both forms: the booster's own answers."""
    (rows, target), parameters = X[case]
    booster = _boost((rows, target), **parameters)
    booster.save_model(tmp_path / f"model.{suffix}")
    loaded = _load(tmp_path)
    got = _scores(loaded.run({"X": rows.astype(np.float32)}, ()))
    np.testing.assert_allclose(got, booster.predict(xgboost.DMatrix(rows)), rtol=1e-6)


@pytest.mark.parametrize("case", [case for case in X if case != "linear"])
@pytest.mark.parametrize("margin", [False, True])
def test_the_direct_call_is_inplace_predict(case: str, margin: bool) -> None:
    """Bit for bit, all rows and one, missing values, rows that do not lie in one block, no rows, some of the rounds;
    also where a release of the library has no such way in."""
    (rows, target), parameters = X[case]
    booster, given = _boost((rows, target), **parameters), rows.astype(np.float32)
    given[::3, 0] = np.nan
    for rounds in ((0, 0), (0, 4)):
        direct = predict_dense(booster, rounds, margin)
        for some in (given, given[:1], given[::2], np.asfortranarray(given), given[:0]):
            kind = "margin" if margin else "value"
            own = booster.inplace_predict(some, iteration_range=rounds, predict_type=kind)
            np.testing.assert_array_equal(direct(some), own)
            assert direct(some).dtype == own.dtype
    usual = predict_dense(_Foreign(booster), (0, 0), margin)
    np.testing.assert_array_equal(usual(given), predict_dense(booster, (0, 0), margin)(given))


class _Foreign:
    """A booster without a handle."""

    def __init__(self, booster: Any) -> None:
        self.inplace_predict = booster.inplace_predict


def test_an_answer_outlives_the_next_run() -> None:
    """XGBoost writes each answer into the same buffer; what was given out stays."""
    rows, _ = DIABETES
    direct = predict_dense(_boost(DIABETES, objective="reg:squarederror"), (0, 0), False)
    first, again = direct(rows[:4].astype(np.float32)), direct(rows[:4].astype(np.float32))
    direct(rows[4:8].astype(np.float32))
    np.testing.assert_array_equal(first, again)
    assert first.flags.owndata


def test_rows_that_the_library_refuses_fail(tmp_path: Path) -> None:
    """XGBoost's own error comes as model_failed with its words, and the next run is answered."""
    rows, _ = CANCER
    booster = _boost(CANCER, objective="binary:logistic")
    with pytest.raises(xgboost.core.XGBoostError):
        predict_dense(booster, (0, 99), False)(rows.astype(np.float32))
    booster.save_model(tmp_path / "model.ubj")
    assert len(_load(tmp_path).run({"X": rows[:2].astype(np.float32)}, ())["label"]) == 2


def test_labels_of_two_classes() -> None:
    """The class of the higher probability, the first of equals and of what is no number, as argmax has it."""
    scores = np.array([0.2, 0.5, 0.50000006, 0.9, np.nan], np.float32)
    signature = boosted_signature("FP32", 1, (), 2, 1)
    got = BoostedModel(signature, lambda rows: scores).run({"X": np.zeros((5, 1), np.float32)}, ())
    np.testing.assert_array_equal(got["probabilities"], np.stack([1 - scores, scores], axis=1))
    np.testing.assert_array_equal(got["label"], np.argmax(got["probabilities"], axis=1))
    assert got["label"].dtype == np.int64


def test_softmax_gives_probabilities_too(tmp_path: Path) -> None:
    """`multi:softmax` says the class alone; here it comes with the probabilities that it was chosen by."""
    rows, _ = IRIS
    _boost(IRIS, objective="multi:softmax", num_class=3).save_model(tmp_path / "model.json")
    same = _boost(IRIS, objective="multi:softprob", num_class=3).predict(xgboost.DMatrix(rows))
    got = _load(tmp_path).run({"X": rows.astype(np.float32)}, ())
    np.testing.assert_allclose(got["probabilities"], same, rtol=1e-5)
    np.testing.assert_array_equal(got["label"], same.argmax(axis=1))


def test_training_that_stopped_early_answers_by_its_best_round(tmp_path: Path) -> None:
    """As XGBoost's own classifier does, not by the rounds that made it worse."""
    rows, target = CANCER
    model = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=3, learning_rate=1.0, n_jobs=1)
    model.fit(rows[::2], target[::2], eval_set=[(rows[1::2], target[1::2])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    model.save_model(tmp_path / "model.ubj")
    got = _load(tmp_path).run({"X": rows.astype(np.float32)}, ())
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(rows), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_names_of_features_and_missing_values_are_kept(tmp_path: Path, library: str) -> None:
    """Columns are called as in training, made-up names are none, and NaN is a missing value."""
    rows, target = CANCER
    rows = np.where(np.arange(rows.size).reshape(rows.shape) % 11 == 0, np.nan, rows)
    names = [f"f_{i}" for i in range(30)]
    if library == "lightgbm":
        booster = lightgbm.train(
            {**QUIET, "objective": "binary"}, lightgbm.Dataset(rows, target, feature_name=names, params=QUIET), 5
        )
        own = booster.predict(rows)
    else:
        data = xgboost.DMatrix(rows, target, feature_names=names)
        booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 5)
        own = booster.predict(data)
    booster.save_model(tmp_path / ("model.txt" if library == "lightgbm" else "model.json"))
    loaded = _load(tmp_path)
    (given,) = loaded.signature.inputs
    assert given.columns == tuple(names)
    got = loaded.run({"X": rows.astype(np.float64 if given.datatype == "FP64" else np.float32)}, ())
    np.testing.assert_allclose(got["probabilities"][:, 1], own, rtol=1e-6)


def _xgboost_json(change: Callable[[dict[str, Any]], None]) -> str:
    model = json.loads(_boost(CANCER, 3, objective="binary:logistic").save_raw("json"))
    change(model["learner"])
    return json.dumps(model)


def _tree(learner: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = learner["gradient_booster"]["model"]["trees"][1]
    return tree


def _set(tree: dict[str, Any], name: str, at: int, value: int) -> None:
    tree[name][at] = value


ASTRAY: dict[str, Callable[[dict[str, Any]], None]] = {
    "far": lambda learner: _set(_tree(learner), "left_children", 0, 100_000),
    "below": lambda learner: _set(_tree(learner), "left_children", 0, -7),
    "to the root": lambda learner: _set(_tree(learner), "right_children", 0, 0),
    "in a circle": lambda learner: _set(_tree(learner), "right_children", 1, 1),
    "no such feature": lambda learner: _set(_tree(learner), "split_indices", 0, 5_000),
    "no such class": lambda learner: _set(learner["gradient_booster"]["model"], "tree_info", 0, 9_000),
    "no such round": lambda learner: _set(learner["gradient_booster"]["model"], "iteration_indptr", -1, 900),
    "more classes": lambda learner: learner["objective"].update(name="multi:softprob"),
}


@pytest.mark.parametrize("case", ASTRAY)
def test_xgboost_trees_that_lead_astray_are_refused(tmp_path: Path, case: str) -> None:
    """P8: an index that points outside, back, or in a circle never reaches a server's memory."""
    (tmp_path / "model.json").write_text(_xgboost_json(ASTRAY[case]))
    with pytest.raises(PublishError) as refused:
        check_in_child(tmp_path, CheckOptions(timeout_s=60))
    assert refused.value.code == "model_unreadable"


def _line(text: str, name: str, change: Callable[[list[str]], list[str]]) -> str:
    """The text with the values of the last line of this name changed. Without `tree_sizes`, which would not fit."""
    lines = [line for line in text.splitlines() if not line.startswith("tree_sizes=")]
    at = max(i for i, line in enumerate(lines) if line.startswith(f"{name}="))
    lines[at] = f"{name}=" + " ".join(change(lines[at].removeprefix(f"{name}=").split(" ")))
    return "\n".join(lines) + "\n"


LEADS: dict[str, tuple[str, Callable[[list[str]], list[str]]]] = {
    "far": ("left_child", lambda values: ["100000", *values[1:]]),
    "no such leaf": ("right_child", lambda values: [*values[:-1], "-90000"]),
    "to the root": ("left_child", lambda values: [*values[:-1], "0"]),
    "in a circle": ("left_child", lambda values: [*values[:-1], str(len(values) - 1)]),
    "no such feature": ("split_feature", lambda values: ["5000", *values[1:]]),
    "more classes": ("objective", lambda values: ["multiclass", "num_class:5"]),
    "other classes": ("num_class", lambda values: ["7"]),
}


@pytest.mark.parametrize("case", LEADS)
def test_lightgbm_trees_that_lead_astray_are_refused(tmp_path: Path, case: str) -> None:
    """P8: the same for LightGBM, and for an objective that would write past the scores of the trees."""
    name, change = LEADS[case]
    text = _light(CANCER, objective="binary").model_to_string()
    (tmp_path / "model.txt").write_text(_line(text, name, change) + "\npandas_categorical:null\n")
    with pytest.raises(PublishError) as refused:
        check_in_child(tmp_path, CheckOptions(timeout_s=60))
    assert refused.value.code == "model_unreadable"


def test_an_unchanged_text_passes_the_same_way(tmp_path: Path) -> None:
    """What the refusals above change is the reason that they are refused."""
    text = _light(CANCER, objective="binary").model_to_string()
    (tmp_path / "model.txt").write_text(_line(text, "left_child", list) + "\npandas_categorical:null\n")
    assert check_in_child(tmp_path, CheckOptions(timeout_s=60)).profile.batched


def test_categories_of_text_are_refused(tmp_path: Path) -> None:
    """A model of pandas categories takes text that no numeric tensor carries: refused with the remedy."""
    text = _light(CANCER, objective="binary").model_to_string() + '\npandas_categorical:[["no", "yes"]]\n'
    (tmp_path / "model.txt").write_text(text)
    runtime, entry = detect(tmp_path)
    with pytest.raises(PublishError) as refused:
        runtime.inspect(tmp_path, entry, {})
    assert refused.value.code == "format_not_allowed"
    assert "cat.codes" in refused.value.message


def test_a_ubjson_document_is_whole_or_not() -> None:
    """Cut at any byte, with a byte too many, or with a length that leads beyond the end, it is not: XGBoost's own
    reader would run past the end."""
    whole = bytes(_boost(CANCER, 1, objective="binary:logistic").save_raw("ubj"))
    assert is_whole(whole)
    assert not any(is_whole(whole[:cut]) for cut in range(len(whole)))
    assert not is_whole(whole + b"x")
    assert not is_whole(whole.replace(b"[$d#L\0\0\0\0\0\0\0", b"[$d#L\x7f\0\0\0\0\0\0", 1))
    assert not is_whole(whole.replace(b"[$d#L\0", b"[$d#L\xff", 1))
    assert not is_whole(b"{" + b"i\x01a{" * 100 + b"}" * 101)
