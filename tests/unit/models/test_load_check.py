"""Loading: files verified, rows in a batch equal to rows alone, times measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.codec.oip import OipCodec
from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelError, PublishError, UnavailableError
from modelyard.core.settings import load_settings
from modelyard.core.types import DATATYPES, Array, CodecBounds, LoadProfile, RawRequest, Signature, Tensors, TensorSpec
from modelyard.models.load import check_load, decode_example, load_servable
from modelyard.models.manifest import Manifest
from modelyard.models.rows import example_request
from modelyard.testing import FakeClock, StubModel, StubRuntime, version


class Formula:
    """A model that is one function of its input `x`, output `y`."""

    def __init__(self, compute: Callable[[Array], Array], out: str = "FP32", shape: tuple[int, ...] = (-1, 3)) -> None:
        self.signature = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", out, shape),))
        self.compute = compute

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port."""
        return {"y": self.compute(inputs["x"])}

    def compact(self, inputs: Tensors) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to free."""


def _check(model: Formula, example: Tensors | None = None) -> LoadProfile:
    return check_load(model, example, 1e9, SystemClock())


@pytest.mark.parametrize(
    ("compute", "batched"),
    [
        (lambda x: x * 2, True),
        (lambda x: x * np.float32(1 + 1e-6 * (len(x) > 1)), True),
        (lambda x: x * np.float32(1 + 1e-3 * (len(x) > 1)), False),
        (lambda x: x - x.mean(axis=0), False),
        (lambda x: np.where(x > 1e9, x, np.nan), True),
        (lambda x: x[::-1] if len(x) > 1 else x, False),
        (lambda x: x + np.random.default_rng().random(x.shape), False),
    ],
)
def test_only_independent_rows_are_batched(compute: Callable[[Array], Array], batched: bool) -> None:
    """A model whose rows change with their neighbours, their order or by chance is never batched; float noise
    within 1e-6 + 1e-5·|x| and NaN are no difference."""
    assert _check(Formula(compute)).batched is batched


def test_integers_must_be_equal_exactly() -> None:
    """An integer output that is off by one in a batch is a difference, however large the number."""
    wrong = Formula(lambda x: np.full(x.shape, 10**9 + (len(x) > 1), dtype=np.int64), "INT64")
    right = Formula(lambda x: np.full(x.shape, 10**9, dtype=np.int64), "INT64")
    assert (_check(wrong).batched, _check(right).batched) == (False, True)


def test_an_output_of_another_length_is_never_batched() -> None:
    """An output that does not follow the batch is refused or left unbatched."""
    assert _check(Formula(lambda x: x.sum(axis=0, keepdims=True), shape=(-1, 3))).batched is False
    with pytest.raises(PublishError) as refused:
        _check(Formula(lambda x: x[:, :2]))
    assert refused.value.code == "signature_conflict"


def test_a_model_that_takes_no_made_up_rows_needs_an_example() -> None:
    """Without an example such a model is refused with the remedy; with one it loads on it alone."""

    def picky(x: Array) -> Array:
        if not (x == 7).all():
            raise ModelError("model_failed", "only sevens")
        return x

    with pytest.raises(PublishError) as refused:
        _check(Formula(picky))
    assert refused.value.code == "warm_up_failed"
    assert _check(Formula(picky), {"x": np.full((1, 3), 7, np.float32)}).batched is False
    with pytest.raises(PublishError) as refused:
        _check(Formula(picky), {"x": np.zeros((1, 3), np.float32)})
    assert refused.value.code == "example_failed"


def test_a_slow_model_leaves_the_loop() -> None:
    """in_loop follows the median of 32 rows: 100 µs stays below a bound of 300 µs, 400 µs does not."""
    for run_s, in_loop in ((100e-6, True), (400e-6, False)):
        clock = FakeClock()
        model = StubModel(before_run=lambda inputs, s=run_s, c=clock: c.advance(s))
        profile = check_load(model, None, 300, clock)
        assert (profile.in_loop, profile.batched) == (in_loop, True)
        assert profile.run_us_32 == pytest.approx(run_s * 1e6, rel=1e-3)


def _stub_folder(tmp_path: Path) -> Path:
    (tmp_path / "stub.json").write_bytes(b'{"k": 2.0}')
    return tmp_path


@pytest.mark.parametrize(("row_us", "most"), [(10, 33), (2_000, 17), (60_000, 5)])
def test_a_slow_model_is_checked_with_fewer_rows(row_us: int, most: int) -> None:
    """32 rows at once take a slow model's time, and memory that its library keeps: a run is about 32 ms, but at least
    4 rows (one more with an example); the figure of 32 rows is worked out from them. It is left compact."""
    clock, sizes = FakeClock(), []
    compacted: list[int] = []

    def compute(x: Array) -> Array:
        clock.advance(row_us * len(x) / 1e6)
        sizes.append(len(x))
        return x * 2

    model = Formula(compute)
    model.compact = lambda inputs: compacted.append(len(inputs["x"]))  # type: ignore[method-assign]
    profile = check_load(model, {"x": np.ones((1, 3), np.float32)}, 300, clock)
    assert profile.batched
    assert max(sizes) == most
    assert profile.run_us_32 == pytest.approx(32 * row_us)
    assert compacted == [1]


def test_the_bytes_served_are_the_bytes_published(tmp_path: Path) -> None:
    """A changed, cut or missing file, or another manifest, is not loaded (P5)."""
    settings, clock = load_settings(data=tmp_path / "data"), SystemClock()
    good, folder = version(), _stub_folder(tmp_path)
    assert load_servable(good, folder, StubRuntime(), settings, clock).digest == good.digest
    for spoil in (b'{"k": 3.0}', b'{"k": 2.0', None):
        (folder / "stub.json").unlink()
        if spoil is not None:
            (folder / "stub.json").write_bytes(spoil)
        with pytest.raises(UnavailableError) as refused:
            load_servable(good, folder, StubRuntime(), settings, clock)
        assert refused.value.code == "model_not_ready"
        _stub_folder(tmp_path)


class SwappingRuntime(StubRuntime):
    """Before and after it reads, somebody changes what lies there; `models` lists what it made."""

    def __init__(self, before: Callable[[Path], object], after: Callable[[Path], object]) -> None:
        self.before, self.after = before, after
        self.models: list[StubModel] = []

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> StubModel:
        """The model of what lies there by then."""
        self.before(folder)
        self.models.append(super().load(folder, manifest, options))
        self.after(folder)
        return self.models[-1]


def _rewrite(content: bytes) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        (folder / "fresh").write_bytes(content)
        (folder / "fresh").rename(folder / "stub.json")

    return rewrite


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_rewrite(b'{"k": 9.0}'), _rewrite(b'{"k": 2.0}')),
        (_rewrite(b'{"k": 9.0}'), lambda folder: None),
        (lambda folder: (folder / "numpy.py").write_text(""), lambda folder: None),
    ],
    ids=["and back", "for good", "beside"],
)
def test_what_was_hashed_is_what_was_read(
    tmp_path: Path, before: Callable[[Path], object], after: Callable[[Path], object]
) -> None:
    """P5: a file that becomes another between its hash and its load, also if it is itself again afterwards, or one that
    is put beside: the model is not given out, and is closed."""
    runtime, folder = SwappingRuntime(before, after), _stub_folder(tmp_path)
    with pytest.raises(UnavailableError) as refused:
        load_servable(version(), folder, runtime, load_settings(data=tmp_path / "data"), SystemClock())
    assert refused.value.code == "model_not_ready"
    assert [model.closed for model in runtime.models] == [True]


@pytest.mark.parametrize("kind", ["file", "file below", "link", "linked folder"])
def test_nothing_lies_beside_what_was_published(tmp_path: Path, kind: str) -> None:
    """P5: a module that nobody signed, put into a version's folder, would be imported before the one that it is called
    like. A folder that holds more than its manifest says is not loaded; an empty folder in it is nothing."""
    settings, clock = load_settings(data=tmp_path / "data"), SystemClock()
    good, folder = version(), _stub_folder(tmp_path)
    (folder / "empty").mkdir()
    assert load_servable(good, folder, StubRuntime(), settings, clock).digest == good.digest
    planted = folder / ("empty/numpy.py" if kind == "file below" else "numpy.py")
    if "link" in kind:
        planted.symlink_to(tmp_path if kind == "linked folder" else folder / "stub.json")
    else:
        planted.write_text("")
    with pytest.raises(UnavailableError) as refused:
        load_servable(good, folder, StubRuntime(), settings, clock)
    assert refused.value.detail["field"] == planted.relative_to(folder).as_posix()


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "FP16"])
def test_the_example_of_an_error_is_one_that_works(datatype: str) -> None:
    """example_request gives a request that the decoder takes, for every datatype that JSON can carry."""
    signature = Signature(
        (TensorSpec("x", datatype, (-1, 4)), TensorSpec("n", "INT64", (-1,))), (TensorSpec("y", "FP32", (-1,)),)
    )
    example = example_request(signature)
    tensors = decode_example(signature, example)
    assert tensors is not None
    assert {name: array.shape for name, array in tensors.items()} == {"x": (1, 4), "n": (1,)}
    import orjson

    request = OipCodec().decode(RawRequest(orjson.dumps(example)), signature, CodecBounds())
    assert request.rows == 1


def test_an_example_that_does_not_fit_is_named() -> None:
    """example_failed carries the decoder's own code and field."""
    signature = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),))
    with pytest.raises(PublishError) as refused:
        decode_example(signature, {"inputs": [{"name": "z", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})
    assert refused.value.code == "example_failed"
    assert refused.value.detail["reason"] in ("input_unknown", "input_missing")
