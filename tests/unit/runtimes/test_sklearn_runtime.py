"""scikit-learn through skops: signature from the estimator, safe types only, answers as in process."""

from __future__ import annotations

import os
import sys
import weakref
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import BisectingKMeans, KMeans, MeanShift
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from skops.io import dump, get_untrusted_types

from modelyard.core.errors import PublishError
from modelyard.core.types import TensorSpec
from modelyard.models.manifest import Manifest
from modelyard.models.report import CheckOptions
from modelyard.runtimes import detect
from modelyard.runtimes.check import check_files
from modelyard.runtimes.sklearn import (
    SklearnModel,
    SklearnRuntime,
    estimator_signature,
    held,
    read_estimator,
    settle,
)

RUNTIME = SklearnRuntime()
TREE = "sklearn.tree._tree.Tree"
"""skops does not trust it: its nodes are indices that native code follows without a check."""


def _save(estimator: Any, folder: Path) -> Path:
    folder.mkdir()
    dump(estimator, folder / "model.skops")
    return folder


def _load(folder: Path, *trusted: str) -> Any:
    options = {"trusted_types": trusted}
    found = RUNTIME.inspect(folder, "model.skops", options)
    return RUNTIME.load(folder, Manifest("sklearn", "model.skops", (), found.signature), options)


def test_a_classifier_on_real_data(tmp_path: Path) -> None:
    """Breast cancer, a pipeline: two outputs, named classes, every answer equal to the estimator's own."""
    rows, target = load_breast_cancer(return_X_y=True)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, np.array(["no", "yes"])[target])
    loaded = _load(_save(estimator, tmp_path / "m"))
    assert loaded.signature.inputs == (TensorSpec("X", "FP64", (-1, 30)),)
    label, scores = loaded.signature.outputs
    assert (label.datatype, scores.labels, scores.shape) == ("BYTES", ("no", "yes"), (-1, 2))
    got = loaded.run({"X": rows}, ())
    assert [item.decode() for item in got["label"]] == list(estimator.predict(rows))
    np.testing.assert_array_equal(got["probabilities"], estimator.predict_proba(rows))
    assert list(loaded.run({"X": rows}, ["label"])) == ["label"]


def _pipeline(last: Any) -> Any:
    return make_pipeline(make_pipeline(StandardScaler(copy=False), "passthrough"), MinMaxScaler(copy=False), last)


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "logistic": lambda: LogisticRegression(max_iter=50),
    "steps": lambda: _pipeline(LogisticRegression()),
    "steps in steps": lambda: make_pipeline(PCA(3), _pipeline(MLPClassifier((8,), max_iter=20, random_state=0))),
    "discriminant": LinearDiscriminantAnalysis,
    "neighbours": lambda: KNeighborsClassifier(3),
    "bayes": GaussianNB,
    "vectors": lambda: SVC(),
    "forest": lambda: RandomForestClassifier(7, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=5),
    "votes": lambda: VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression(max_iter=50))], voting="soft"),
    "stack": lambda: StackingClassifier([("a", GaussianNB()), ("b", LogisticRegression(max_iter=50))], cv=2),
    "calibrated": lambda: CalibratedClassifierCV(GaussianNB(), cv=2),
    "searched": lambda: GridSearchCV(LogisticRegression(max_iter=50), {"C": [0.1, 1.0]}, cv=2),
    "one to one": lambda: OneVsRestClassifier(LogisticRegression(max_iter=50)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_outputs_of_one_computation_are_the_estimators_own(name: str, classes: int) -> None:
    """Label and probabilities, all rows and each of the first alone, in both orders: bit for bit what two calls of the
    estimator give. The rows stay as they were, also where a step may change them."""
    rows, target = load_iris(return_X_y=True)
    estimator = CLASSIFIERS[name]().fit(rows.copy(), np.minimum(target, classes - 1))
    scores = hasattr(estimator, "predict_proba")
    given = [rows, *(rows[i : i + 1] for i in range(3))]
    own = [(estimator.predict(each.copy()), estimator.predict_proba(each.copy()) if scores else None) for each in given]
    loaded = SklearnModel(settle(estimator), estimator_signature(estimator))
    names = [spec.name for spec in loaded.signature.outputs]
    assert names == ["label", "probabilities"][: 1 + scores]
    for each, (label, shares) in zip(given, own, strict=True):
        for wanted in ((), names[::-1], names[-1:]):
            got = loaded.run({"X": (mine := each.copy())}, wanted)
            assert list(got) == list(wanted or names)
            np.testing.assert_array_equal(got.get("label", label), label)
            np.testing.assert_array_equal(got.get("probabilities", shares), shares)
            np.testing.assert_array_equal(mine, each)


class _Counting(LogisticRegression):
    """Counts what is computed."""

    computed = 0

    def decision_function(self, X: Any) -> Any:
        """As it is."""
        type(self).computed += 1
        return super().decision_function(X)


def test_what_both_outputs_begin_with_is_computed_once() -> None:
    """One decision for label and probabilities of the same rows, another for the next run; nothing is kept between."""
    rows, target = load_iris(return_X_y=True)
    estimator = _Counting(max_iter=500).fit(rows, target)
    loaded = SklearnModel(estimator, estimator_signature(estimator))
    _Counting.computed = 0
    first = loaded.run({"X": rows}, ())
    assert _Counting.computed == 1
    rows += 1
    second = loaded.run({"X": rows}, ())
    assert _Counting.computed == 2
    assert not np.array_equal(first["probabilities"], second["probabilities"])
    kept = weakref.ref(estimator)
    del estimator
    loaded.close()
    loaded.close()
    assert kept() is None  # without the collector of cycles: it may be large


def test_two_threads_get_each_their_own() -> None:
    """One model from several threads, which the batcher never does: each has the answers of its rows."""
    rows, target = load_iris(return_X_y=True)
    estimator = LogisticRegression(max_iter=500).fit(rows, target)
    loaded = SklearnModel(estimator, estimator_signature(estimator))
    each = [rows[i : i + 10].copy() for i in range(0, 140, 20)]
    own = [loaded.run({"X": some}, ()) for some in each]

    def ask(i: int) -> bool:
        got = loaded.run({"X": each[i % len(each)]}, ())
        return all(np.array_equal(got[name], own[i % len(each)][name]) for name in got)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(ask, range(400)))
    finally:
        sys.setswitchinterval(before)


def test_a_regressor_gives_a_value(tmp_path: Path) -> None:
    """Diabetes, ridge regression: one output `value`."""
    rows, target = load_diabetes(return_X_y=True)
    estimator = Ridge().fit(rows, target)
    loaded = _load(_save(estimator, tmp_path / "m"))
    assert loaded.signature.outputs == (TensorSpec("value", "FP64", (-1,)),)
    np.testing.assert_array_equal(loaded.run({"X": rows}, ())["value"], estimator.predict(rows))


def test_an_estimators_own_threads_are_not_started(tmp_path: Path) -> None:
    """`n_jobs=-1` in the file becomes 1: threads are sized by the server. Trees need the operator's trust."""
    rows, target = load_iris(return_X_y=True)
    folder = _save(RandomForestClassifier(5, n_jobs=-1).fit(rows, target), tmp_path / "m")
    with pytest.raises(PublishError) as refused:
        _load(folder)
    assert refused.value.detail["got"] == [TREE]
    loaded = _load(folder, TREE)
    assert loaded._estimator.n_jobs == 1


def test_untrusted_types_are_named_and_nothing_runs(tmp_path: Path) -> None:
    """A file that names `os.system` is types_untrusted, whatever the file says of itself; only the server's
    configuration trusts a type."""
    rows, target = load_iris(return_X_y=True)
    estimator = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500)).fit(rows, target)
    estimator.steps[0][1].func = os.system
    folder = _save(estimator, tmp_path / "m")
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(folder, "model.skops", {})
    assert refused.value.code == "types_untrusted"
    assert refused.value.detail["got"] == ["posix.system"]


def test_a_missing_extra_is_one_sentence_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without skops the refusal is runtime_missing and says what to type."""
    folder = _save(Ridge().fit([[0.0], [1.0]], [0, 1]), tmp_path / "m")
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(folder, "model.skops", {})
    assert refused.value.code == "runtime_missing"
    assert "pip install 'modelyard[sklearn]'" in refused.value.message


def test_files_that_are_cut_off_or_too_large_are_refused(tmp_path: Path) -> None:
    """A truncated zip is model_unreadable; one that states more than a version may hold is archive_unsafe."""
    whole = (_save(Ridge().fit([[0.0], [1.0]], [0, 1]), tmp_path / "m") / "model.skops").read_bytes()
    for size in range(4, len(whole), max(1, len(whole) // 16)):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "model.skops").write_bytes(whole[:size])
        with pytest.raises(PublishError) as refused:
            check_files(folder, CheckOptions())
        assert refused.value.code == "model_unreadable"
    bomb = tmp_path / "bomb"
    bomb.mkdir()
    with zipfile.ZipFile(bomb / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(10_000_000))
    assert detect(bomb)[0].format == "sklearn"
    with pytest.raises(PublishError) as refused:
        check_files(bomb, CheckOptions(max_version_bytes=1_000_000))
    assert refused.value.code == "archive_unsafe"


def test_an_estimator_that_was_not_fitted_is_refused(tmp_path: Path) -> None:
    """There is no signature to read: refused with the remedy."""
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(_save(Ridge(), tmp_path / "m"), "model.skops", {})
    assert refused.value.code == "format_not_allowed"


def _reading(path: str) -> Any:
    """A classifier that answers whether a file of the server holds the letter "x": a first one answers its name for
    every row, a vectorizer opens what it is given. All of types that skops trusts by itself."""
    from sklearn.compose import ColumnTransformer
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import StackingClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows, target = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    reader = CountVectorizer(input="content", vocabulary={"x": 0}, analyzer="char")
    last = make_pipeline(ColumnTransformer([("text", reader, 0)]), LogisticRegression())
    last.fit(np.array([["x"], ["y"]] * 10, dtype=object), target)
    stacked = StackingClassifier([("name", DummyClassifier())], LogisticRegression(), stack_method="predict")
    stacked.fit(rows, target)
    stacked.estimators_[0].classes_ = np.array([path, path], dtype=object)
    last[0].transformers_[0][1].input = "filename"
    stacked.final_estimator_, stacked.named_estimators_ = last, {}
    return stacked


@pytest.mark.parametrize("kind", ["filename", "file"])
def test_an_estimator_that_opens_what_its_rows_name_is_refused(tmp_path: Path, kind: str) -> None:
    """P8: types that are trusted, deep inside of one another, still read any file for whoever asks: they never run."""
    secret = tmp_path / "secret"
    secret.write_text("xyz")
    estimator = _reading(str(secret))
    estimator.final_estimator_[0].transformers_[0][1].input = kind
    folder = tmp_path / "m"
    folder.mkdir()
    dump(estimator, folder / "model.skops")
    assert get_untrusted_types(file=folder / "model.skops") == []
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(folder, "model.skops", {})
    assert refused.value.code == "format_not_allowed"
    assert "CountVectorizer" in refused.value.message


def test_what_was_fitted_inside_has_one_job_too(tmp_path: Path) -> None:
    """A fitted part is no parameter of what holds it."""
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    rows, target = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    voting = VotingClassifier([("near", KNeighborsClassifier(n_jobs=8)), ("line", LogisticRegression())])
    voting.fit(rows, target)
    folder = tmp_path / "m"
    folder.mkdir()
    dump(voting, folder / "model.skops")
    types = tuple(get_untrusted_types(file=folder / "model.skops"))
    found = read_estimator(folder / "model.skops", {"trusted_types": types})
    assert [part.n_jobs for part in held(found) if hasattr(part, "n_jobs")].count(8) == 0


def _shorter(name: str, *keep: slice) -> Any:
    def change(estimator: Any) -> None:
        setattr(estimator, name, getattr(estimator, name)[keep].copy())

    return change


ALTERED: dict[str, tuple[Any, Any]] = {
    "coefficients": (SVC(), _shorter("_dual_coef_", slice(None), slice(1))),
    "intercepts": (SVC(), _shorter("_intercept_", slice(1))),
    "vectors": (SVC(), _shorter("support_vectors_", slice(None), slice(1))),
    "counts": (SVC(), lambda made: setattr(made, "_n_support", np.array([-9, 9, made._n_support.sum()], np.int32))),
    "another machine": (SVR(), lambda made: setattr(made, "_impl", "c_svc")),
    "a regression's coefficients": (SVR(), _shorter("_dual_coef_", slice(None), slice(1))),
    "neighbours' columns": (KNeighborsClassifier(algorithm="brute"), _shorter("_fit_X", slice(None), slice(1))),
    "neighbours' answers": (KNeighborsClassifier(algorithm="brute"), _shorter("_y", slice(1))),
    "centres' columns": (KMeans(3, n_init=1), _shorter("cluster_centers_", slice(None), slice(1))),
}


@pytest.mark.parametrize("case", ALTERED)
def test_arrays_that_compiled_code_reads_beyond_are_refused(tmp_path: Path, case: str) -> None:
    """P8: an array that is shorter than another says is read beyond its end, and the answer tells what lies there."""
    made, alter = ALTERED[case]
    made.fit(*load_iris(return_X_y=True))
    folder = _save(made, tmp_path / "good")
    assert read_estimator(folder / "model.skops", {}) is not None
    alter(made)
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(_save(made, tmp_path / "m"), "model.skops", {})
    assert refused.value.code == "format_not_allowed"


@pytest.mark.parametrize(
    "made",
    [SVC(kernel="poly"), NuSVC(), SVR(), NuSVR(), OneClassSVM(), SVC(kernel="linear"), KMeans(2, n_init=1),
     KNeighborsRegressor(algorithm="brute"), KNeighborsClassifier(algorithm="brute", n_neighbors=3),
     MeanShift(), NearestCentroid(), BisectingKMeans(2, random_state=0)],
    ids=lambda made: type(made).__name__,
)  # fmt: skip
def test_what_was_not_altered_is_served(tmp_path: Path, made: Any) -> None:
    """Estimators with compiled code answer as they do in process."""
    rows, target = load_iris(return_X_y=True)
    made.fit(rows[:100], target[:100])
    folder = _save(made, tmp_path / "m")
    types = tuple(get_untrusted_types(file=folder / "model.skops"))
    found = read_estimator(folder / "model.skops", {"trusted_types": types})
    np.testing.assert_array_equal(found.predict(rows), made.predict(rows))


@pytest.mark.parametrize("names", [["a", "b", "c"], ["a", "b", "c", "a"], ["a", "b", "c", "d", "e"]])
def test_names_that_are_not_as_many_as_the_features_are_refused(tmp_path: Path, names: list[str]) -> None:
    """A file that names fewer, more or the same twice: rows by name could not be told apart."""
    made = LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))
    made.feature_names_in_ = np.array(names, dtype=object)
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(_save(made, tmp_path / "m"), "model.skops", {})
    assert refused.value.detail["field"] == "inputs[0].columns"


def test_classes_that_are_called_alike_are_refused(tmp_path: Path) -> None:
    """Two classes of one name, by the file's own word."""
    made = LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))
    made.classes_ = np.array(["a", "b", "a"])
    with pytest.raises(PublishError) as refused:
        RUNTIME.inspect(_save(made, tmp_path / "m"), "model.skops", {})
    assert refused.value.detail["field"] == "outputs[1].labels"
