"""`modelyard convert`: the ONNX file answers as the model did, or is not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from typer.testing import CliRunner, Result

from modelyard.cli.exits import Exit, exit_code
from modelyard.cli.main import app
from modelyard.core.errors import CommandError, ModelyardError
from modelyard.core.types import Tensors
from modelyard.models.report import CheckOptions
from modelyard.runtimes.check import check_files
from modelyard.runtimes.conversion.comparison import compare
from modelyard.runtimes.conversion.rows_of_trees import rows_of_trees
from modelyard.testing import FakeClock, StubModel

TABLES = {"breast_cancer": load_breast_cancer, "iris": load_iris, "diabetes": load_diabetes}


def _convert(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def _save(library: str, table: str, folder: Path) -> Path:
    rows, target = TABLES[table](return_X_y=True)
    classify = table != "diabetes"
    if library == "lightgbm":
        from lightgbm import LGBMClassifier, LGBMRegressor

        kind = LGBMClassifier if classify else LGBMRegressor
        kind(n_estimators=10, verbosity=-1, n_jobs=1).fit(rows, target).booster_.save_model(folder / "model.txt")
        return folder / "model.txt"
    if library == "xgboost":
        from xgboost import XGBClassifier, XGBRegressor

        (XGBClassifier if classify else XGBRegressor)(n_estimators=10, n_jobs=1).fit(rows, target).save_model(
            folder / "model.ubj"
        )
        return folder / "model.ubj"
    from sklearn.linear_model import LogisticRegression, Ridge
    from skops.io import dump

    dump((LogisticRegression(max_iter=5000) if classify else Ridge()).fit(rows, target), folder / "model.skops")
    return folder / "model.skops"


def _csv(table: str, path: Path) -> Path:
    bunch = TABLES[table]()
    names = [name.replace(" ", "_") for name in bunch.feature_names]
    lines = [",".join(names), *(",".join(map(repr, map(float, row))) for row in bunch.data[:80])]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("library", ["sklearn", "lightgbm", "xgboost"])
def test_the_onnx_file_answers_as_the_model(tmp_path: Path, library: str, table: str) -> None:
    """Three tables by three libraries: within the tolerance on real rows, and what is written is a model that passes
    a publish."""
    source = _save(library, table, tmp_path)
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    done = _convert(source, out, "--sample", _csv(table, tmp_path / "rows.csv"), "--json")
    assert done.exit_code == 0, done.exception
    said = json.loads(done.stdout)
    assert (said["format"], said["rows"], said["labels_differ"]) == (library, 80, 0)
    assert said["largest_difference"] <= said["tolerance"] == 1e-4
    assert min(said["row_us_before"], said["row_us_after"], said["times_faster"]) > 0
    assert check_files(out.parent, CheckOptions()).profile.batched


def test_people_read_a_sentence(tmp_path: Path) -> None:
    """Without `--json`: how much faster a row is, in words; without a sample the rows are made up, and it says so."""
    done = _convert(_save("sklearn", "iris", tmp_path), tmp_path / "model.onnx")
    assert done.exit_code == 0, done.exception
    assert "made up" in done.stdout
    assert "Single rows take" in done.stdout


def _refused(done: Result, code: str) -> ModelyardError:
    assert isinstance(done.exception, ModelyardError), done.output
    assert done.exception.code == code
    return done.exception


def test_nothing_is_written_where_answers_differ(tmp_path: Path) -> None:
    """A tolerance that float32 cannot keep: conversion_differs with the distance, exit code 1, no file."""
    source = _save("lightgbm", "diabetes", tmp_path)
    done = _convert(source, tmp_path / "model.onnx", "--tolerance", "1e-18")
    refused = _refused(done, "conversion_differs")
    assert refused.detail["got"] > 1e-18
    assert exit_code(refused) == Exit.REFUSED
    assert not (tmp_path / "model.onnx").exists()


def test_what_has_no_form_in_onnx_is_refused(tmp_path: Path) -> None:
    """A file that is ONNX already is conversion_unsupported; one that is no model is refused as at a publish."""
    assert _convert(_save("sklearn", "iris", tmp_path), tmp_path / "model.onnx").exit_code == 0
    _refused(_convert(tmp_path / "model.onnx", tmp_path / "again.onnx"), "conversion_unsupported")
    (tmp_path / "broken.ubj").write_bytes(b"broken")
    _refused(_convert(tmp_path / "broken.ubj", tmp_path / "again.onnx"), "model_unreadable")
    _refused(_convert(tmp_path / "nothing.ubj", tmp_path / "again.onnx"), "file_unreadable")


def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Too few columns, and cells that are no numbers."""
    source = _save("sklearn", "iris", tmp_path)
    for text in ("a,b\n1,2\n", "a,b,c,d\n1,2,3,x\n"):
        (tmp_path / "rows.csv").write_text(text)
        done = _convert(source, tmp_path / "model.onnx", "--sample", tmp_path / "rows.csv")
        assert isinstance(done.exception, CommandError)
        assert done.exception.code == "file_unreadable"


def test_distances_are_relative_above_one_and_absolute_below() -> None:
    """1 % of a large number is 0.01; so is a hundredth near zero; NaN against a number is infinite, NaN twice none."""
    clock = FakeClock()

    def turn(_: Tensors) -> None:
        clock.advance(0.001)

    rows = np.array([[1000.0, 0.0], [0.0, 0.0]], np.float32)
    found = compare(StubModel(1.0, before_run=turn), StubModel(1.01), rows, 0.011, clock)
    assert found.largest == pytest.approx(0.01, rel=1e-4)
    assert found.agrees
    assert found.before_us == pytest.approx(1000)
    gaps = np.array([[np.nan, 1.0]], np.float32)
    assert compare(StubModel(1.0), StubModel(1.0), gaps, 0.0, clock).largest == 0.0
    assert compare(StubModel(1.0), StubModel(float("nan")), rows, 1.0, clock).largest == float("inf")


@pytest.mark.parametrize("name", ["RidgeClassifier", "Perceptron", "LinearSVC"])
def test_a_classifier_without_probabilities_has_none_as_onnx(tmp_path: Path, name: str) -> None:
    """The exporter gives decision values as a second output; what is written has the label alone, as the model had."""
    import sklearn.linear_model
    import sklearn.svm
    from skops.io import dump

    kind = getattr(sklearn.linear_model, name, None) or getattr(sklearn.svm, name)
    dump(kind().fit(*load_iris(return_X_y=True)), tmp_path / "model.skops")
    (tmp_path / "out").mkdir()
    done = _convert(tmp_path / "model.skops", tmp_path / "out" / "model.onnx")
    assert done.exit_code == 0, done.exception
    (label,) = check_files(tmp_path / "out", CheckOptions()).signature.outputs
    assert (label.datatype, label.shape) == ("INT64", (-1,))


def test_zeros_that_count_as_missing_are_a_difference(tmp_path: Path) -> None:
    """Trees with `zero_as_missing` send a zero the other way than ONNX: made-up rows show it, nothing is written."""
    import lightgbm

    draw = np.random.default_rng(0)
    rows = draw.normal(size=(500, 3))
    rows[draw.random(rows.shape) < 0.4] = 0
    settings = {"verbosity": -1, "num_threads": 1, "zero_as_missing": True}
    data = lightgbm.Dataset(rows, np.where(rows[:, 0] == 0, 5, rows[:, 0]), params=settings)
    lightgbm.train(settings, data, 10).save_model(tmp_path / "model.txt")
    _refused(_convert(tmp_path / "model.txt", tmp_path / "model.onnx"), "conversion_differs")


def test_what_a_row_loses_by_rounding_is_a_difference(tmp_path: Path) -> None:
    """Numbers above 2^24 that FP32 cannot tell apart: the model gets the sample as it is, not as ONNX would see it."""
    import lightgbm

    rows = np.array([[2.0**24], [2.0**24 + 1]] * 50)
    settings = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_data_in_bin": 1}
    data = lightgbm.Dataset(rows, np.array([0.0, 10.0] * 50), params=settings)
    lightgbm.train(settings, data, 5).save_model(tmp_path / "model.txt")
    np.save(tmp_path / "rows.npy", rows)
    done = _convert(tmp_path / "model.txt", tmp_path / "model.onnx", "--sample", tmp_path / "rows.npy")
    _refused(done, "conversion_differs")


def test_rows_are_made_up_where_the_trees_tell_them_apart(tmp_path: Path) -> None:
    """Trees of times in UNIX seconds: rows around zero all end in one leaf, those between the thresholds show what FP32
    takes for the same second. Nothing is written."""
    import lightgbm

    rows = 1_760_000_000.0 + 10.0 * np.arange(400.0).reshape(-1, 1)
    settings = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_data_in_bin": 1, "num_leaves": 200}
    data = lightgbm.Dataset(rows, np.arange(400.0) % 7, params=settings)
    lightgbm.train(settings, data, 5).save_model(tmp_path / "seconds.txt")
    _refused(_convert(tmp_path / "seconds.txt", tmp_path / "model.onnx"), "conversion_differs")
    assert not (tmp_path / "model.onnx").exists()


def test_rows_of_trees_lie_around_their_thresholds(tmp_path: Path) -> None:
    """Each column that a tree asks for is drawn over all of its thresholds, the others are 0; a file without trees has
    no such rows; the same seed draws the same."""
    done = _convert(_save("xgboost", "iris", tmp_path), tmp_path / "trees.onnx")
    assert done.exit_code == 0, done.exception
    content = (tmp_path / "trees.onnx").read_bytes()
    rows = rows_of_trees(content, 4, 200, 7)
    assert rows.shape == (200, 4)
    table = load_iris().data
    for column in range(4):
        if rows[:, column].any():
            low, high = table[:, column].min() - 1, table[:, column].max() + 1
            assert low < rows[:, column].min() < rows[:, column].max() < high
    assert (rows == rows_of_trees(content, 4, 200, 7)).all()
    _convert(_save("sklearn", "iris", tmp_path), tmp_path / "line.onnx")
    assert rows_of_trees((tmp_path / "line.onnx").read_bytes(), 4, 200, 7).shape == (0, 4)
