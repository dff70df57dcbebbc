"""The parts of `python -m bench.formats`: what it compares with is the library, and what it writes is what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.direct_calls import CALLS
from bench.format_models import Made, as_made, classes_and_pickles, signed
from bench.format_page import BATCH, COLUMNS, DATA, page
from bench.formats import median_us, rate
from tests.contract.runtime_samples import SAMPLES

from modelyard.models.ports import UNSAFE_FORMATS
from modelyard.models.signing.statement import SIGNATURE_FILE
from modelyard.runtimes import RUNTIMES

FIGURES: dict[str, Any] = {
    "publish": "yes", "signature": "y FP32[-1]", "equal_rows": "9 of 9", "batched": "yes", "in_process_us": 6.24,
    "paced_us": 40.0, "served_us": 206.2, "above_us": 200.0, "small_ratio": 0.0312, "working_ratio": 0.849,
    "jail": "no",
}  # fmt: skip


def test_every_format_is_called_by_its_library() -> None:
    """No format is served that has nothing to be compared with."""
    assert CALLS.keys() == RUNTIMES.keys()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """The small models that are programs."""
    return classes_and_pickles(tmp_path_factory.mktemp("programs"))


def _one(made: Made) -> Any:
    return CALLS[made.format](made.path)(np.ascontiguousarray(made.rows[:1]))


@pytest.mark.parametrize("name", ["python", "pickle", "pickle-joblib"])
def test_a_program_in_process_answers_as_it_should(programs: dict[str, Made], name: str) -> None:
    """The call that is measured gives what the rows served are compared with: not less work than was asked for."""
    made = programs[name]
    answered = _one(made)
    label, probabilities = answered.values() if isinstance(answered, dict) else answered
    np.testing.assert_array_equal(label, made.answers["label"][:1])
    np.testing.assert_allclose(probabilities, made.answers["probabilities"][:1], atol=made.tolerance)


@pytest.mark.parametrize("name", ["onnx", "sklearn"])
def test_a_library_in_process_answers_as_it_should(tmp_path: Path, name: str) -> None:
    """Label and probabilities of the file that is published."""
    (tmp_path / "made").mkdir()
    made = as_made(SAMPLES[name](DATA, tmp_path / "made"), tmp_path / "model")
    label, probabilities = _one(made)
    np.testing.assert_array_equal(label, made.answers["label"][:1])
    np.testing.assert_allclose(probabilities, made.answers["probabilities"][:1], atol=made.tolerance)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost-json", "xgboost-ubj"])
def test_boosted_trees_in_process_answer_as_they_should(tmp_path: Path, name: str) -> None:
    """The booster's score is the probability of the second class."""
    (tmp_path / "made").mkdir()
    made = as_made(SAMPLES[name](DATA, tmp_path / "made"), tmp_path / "model")
    np.testing.assert_allclose(_one(made), made.answers["probabilities"][:1, 1], atol=made.tolerance)


def test_programs_are_signed_and_allowed(programs: dict[str, Made]) -> None:
    """Each has a signature of the one key that the settings trust."""
    settings = signed(programs)
    assert all((made.folder / SIGNATURE_FILE).is_file() for made in programs.values())
    assert set(json.loads(settings["MODELYARD_MODELS__UNSAFE_FORMATS"])) == UNSAFE_FORMATS
    assert len(json.loads(settings["MODELYARD_MODELS__TRUSTED_SIGNERS"])) == 1


def test_calls_are_counted() -> None:
    """As many calls as were asked for, one row each, after some to warm up; a rate is that of all rows at once."""
    shapes: list[tuple[int, ...]] = []
    rows = np.ones((3, 2))
    assert median_us(lambda given: shapes.append(given.shape), rows, 7) > 0
    assert shapes == [(1, 2)] * len(shapes)
    assert len(shapes) == 7 + 20
    shapes.clear()
    per_s = rate(lambda given: shapes.append(given.shape), rows, 0.001)
    assert shapes == [(3, 2)] * len(shapes)
    assert per_s > 0


def test_the_page_has_every_figure() -> None:
    """A row for each format, in the order of the columns; what was not measured is a dash, never a nought."""
    without = {name: value for name, value in FIGURES.items() if name != "working_ratio"}
    record = {
        "at": "2026-11-28", "machine": {"cpu": "a CPU", "cores": 2, "python": "3.11.7"}, "load": 0.1, "passes": 3,
        "formats": {"one": FIGURES, "two": without},
    }  # fmt: skip
    written = page(record)
    lines = [line for line in written.splitlines() if line.startswith("| ")]
    assert lines[0] == "| format | " + " | ".join(COLUMNS.values()) + " |"
    figures = "yes | y FP32[-1] | 9 of 9 | yes | 6 µs | 40 µs | 206 µs | 200 µs | 0.03"
    assert lines[2:] == [f"| `one` | {figures} | 0.85 | no |", f"| `two` | {figures} | – | no |"]
    assert f"Batches are {BATCH} rows" in written
    assert "load 0.1 before the start" in written
