"""The promises of models.ports.Runtime and of the models that it loads, for every format and the public fake."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from runtime_samples import CLASSES, SAMPLES, Sample  # type: ignore[import-not-found]

from modelyard.codec.oip import OipCodec
from modelyard.core.clock import SystemClock
from modelyard.core.errors import InvalidRequestError, ModelError, ModelyardError, PublishError
from modelyard.core.types import Array, CodecBounds, LoadedModel, RawRequest
from modelyard.models.load import check_load
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Runtime
from modelyard.runtimes import RUNTIMES, detect
from modelyard.testing import StubRuntime

CUTS = 16
STUB = StubRuntime()


@pytest.fixture(scope="module", params=[(form, table) for form in SAMPLES for table in CLASSES], ids="-".join)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """One format, trained on one table."""
    form, table = request.param
    return SAMPLES[form](table, tmp_path_factory.mktemp(form))


def _runtime(sample: Sample) -> Runtime:
    return STUB if sample.format == "stub" else RUNTIMES[sample.format]


def _load(sample: Sample, folder: Path) -> LoadedModel:
    runtime = _runtime(sample)
    entry = runtime.detect(folder)
    assert entry is not None
    found = runtime.inspect(folder, entry, sample.options)
    assert (found.format, found.entry) == (sample.format, entry)
    return runtime.load(folder, Manifest(found.format, entry, (), found.signature), {"threads": 1})


@pytest.fixture(scope="module")
def loaded(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    """The sample, loaded once for all tests of this page; the last that takes it closes it."""
    model = _load(sample, sample.write(tmp_path_factory.mktemp("loaded") / "m"))
    yield model
    model.close()


def test_it_is_known_by_its_content(sample: Sample, tmp_path: Path) -> None:
    """Whatever the file is called, and among no other formats' runtimes but its own."""
    folder = sample.write(tmp_path / "m", name=sample.name if sample.format == "stub" else "anything.bin")
    entry = _runtime(sample).detect(folder)
    assert entry == next(folder.iterdir()).name
    others = [name for name, runtime in RUNTIMES.items() if name != sample.format and runtime.detect(folder)]
    assert others == []


def test_the_signature_is_found(sample: Sample, loaded: LoadedModel) -> None:
    """One matrix of the table's width in; label and probabilities out for a classifier, one number a row for a
    regression; classes are named in the order of the probabilities."""
    (given,) = loaded.signature.inputs
    assert given.shape == (-1, sample.rows.shape[1])
    outputs = {spec.name: spec for spec in loaded.signature.outputs}
    assert outputs.keys() == sample.answers.keys()
    if sample.classes:
        assert (outputs["label"].datatype, outputs["label"].shape) == ("INT64", (-1,))
        assert outputs["probabilities"].shape == (-1, sample.classes)
        assert outputs["probabilities"].labels == tuple(map(str, range(sample.classes)))


def _check_answers(sample: Sample, loaded: LoadedModel) -> dict[str, Array]:
    got = loaded.run({loaded.signature.inputs[0].name: sample.rows}, ())
    for name, own in sample.answers.items():
        if own.dtype.kind == "i":
            np.testing.assert_array_equal(got[name], own)
        else:
            np.testing.assert_allclose(got[name].reshape(own.shape), own, rtol=1e-5, atol=sample.tolerance)
    return got


def test_the_answers_are_the_librarys_own(sample: Sample, loaded: LoadedModel) -> None:
    """Every held-out row of a real table: labels exactly, numbers within the format's tolerance; also when one output
    alone is asked for."""
    got = _check_answers(sample, loaded)
    for name in sample.answers:
        alone = loaded.run({loaded.signature.inputs[0].name: sample.rows}, [name])
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], got[name])


def test_batched_is_unbatched(loaded: LoadedModel) -> None:
    """P3: the load check finds that each row's answer in a batch is its answer alone."""
    assert check_load(loaded, None, 1e9, SystemClock()).batched


def _refused(loaded: LoadedModel, **changes: Any) -> str:
    given = loaded.signature.inputs[0]
    width = given.shape[1]
    tensor = {"name": given.name, "datatype": given.datatype, "shape": [1, width], "data": [1.0] * width, **changes}
    with pytest.raises(InvalidRequestError) as refused:
        OipCodec().decode(RawRequest(msgspec.json.encode({"inputs": [tensor]})), loaded.signature, CodecBounds())
    return refused.value.code


def test_wrong_input_is_refused_with_a_code(sample: Sample, loaded: LoadedModel) -> None:
    """A request that does not fit the signature that was found never reaches the model; where one does, the model
    says model_failed and answers on."""
    width = loaded.signature.inputs[0].shape[1]
    assert _refused(loaded, shape=[1, width + 1], data=[1.0] * (width + 1)) == "shape_mismatch"
    assert _refused(loaded, data=[1.0] * (width + 1)) == "element_count_mismatch"
    assert _refused(loaded, datatype="BYTES", data=["a"] * width) == "datatype_mismatch"
    assert _refused(loaded, name="nobody") in ("input_unknown", "input_missing")
    if sample.format == "stub":
        return
    name = loaded.signature.inputs[0].name
    for wrong in (sample.rows[:, :-1], np.hstack([sample.rows, sample.rows[:, :1]])):
        with pytest.raises(ModelError) as failed:
            loaded.run({name: np.ascontiguousarray(wrong)}, ())
        assert failed.value.code == "model_failed"
    assert loaded.run({name: sample.rows}, ()).keys() == sample.answers.keys()


def _tried(sample: Sample, folder: Path) -> tuple[LoadedModel | None, PublishError | None]:
    try:
        return _load(sample, folder), None
    except PublishError as refused:
        return None, refused


def test_a_file_that_is_cut_off_is_refused_with_a_code(sample: Sample, tmp_path: Path) -> None:
    """Cut anywhere: model_unreadable, in words that hold no path. A format without a mark at its end (a ModelProto)
    may lose what says nothing of the answers; then they are the library's own."""
    size, refusals = len(sample.content), 0
    cuts = range(max(5, size // CUTS), size - 1, max(1, size // CUTS))
    for cut in cuts:
        folder = sample.write(tmp_path / str(cut), sample.content[:cut])
        loaded, refused = _tried(sample, folder)
        if refused is not None:
            assert refused.code == "model_unreadable", cut
            assert str(tmp_path) not in refused.message
            refusals += 1
        if loaded is not None:
            assert sample.format == "onnx"
            _check_answers(sample, loaded)
    assert refusals >= len(cuts) - 1


def test_an_empty_file_is_refused_with_a_code(sample: Sample, tmp_path: Path) -> None:
    """model_empty, at the detection, and at a load of a file that was emptied since."""
    folder = sample.write(tmp_path / "m", b"")
    with pytest.raises(PublishError) as refused:
        detect(folder)
    assert refused.value.code == "model_empty"
    if sample.format != "stub":
        with pytest.raises(PublishError) as refused:
            _runtime(sample).inspect(folder, sample.name, {})
        assert refused.value.code == "model_empty"


def test_other_bytes_are_not_taken_for_it(sample: Sample, tmp_path: Path) -> None:
    """Text, zeros and another format's beginning under the usual name are of no format, or unreadable."""
    for number, content in enumerate((b"hello " * 100, bytes(4096), b'{"learn": 1}', b"trees are green")):
        folder = sample.write(tmp_path / str(number), content)
        with pytest.raises(PublishError) as refused:
            detect(folder)
        assert refused.value.code in ("model_unreadable", "format_unknown")


def test_closing_lets_go(sample: Sample, loaded: LoadedModel) -> None:
    """A second close does nothing; a run afterwards is model_failed."""
    loaded.close()
    loaded.close()
    with pytest.raises(ModelyardError) as failed:
        loaded.run({loaded.signature.inputs[0].name: sample.rows}, ())
    assert failed.value.code == "model_failed"


MODULES = {"sklearn": "skops.io", **{name: name for name in ("lightgbm", "xgboost", "torch", "tensorflow")}}


def test_a_missing_extra_is_one_sentence_with_the_command(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library the format is still known, and the refusal says what to type."""
    if not sample.extra:
        return
    folder = sample.write(tmp_path / "m")
    monkeypatch.setitem(sys.modules, MODULES[sample.extra], None)
    assert detect(folder)[0].format == sample.format
    with pytest.raises(PublishError) as refused:
        _runtime(sample).inspect(folder, sample.name, {})
    assert refused.value.code == "runtime_missing"
    assert f"pip install 'modelyard[{sample.extra}]'" in refused.value.message
    assert refused.value.message.count("\n") == 0
