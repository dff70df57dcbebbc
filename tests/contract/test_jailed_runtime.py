"""The promises of models.ports.Runtime for the formats that run in a jail: real tables, the library's own answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jailed_samples import pickled, python  # type: ignore[import-not-found]
from runtime_samples import Sample

from jailed import BOUNDS
from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelError, PublishError
from modelyard.core.types import LoadedModel
from modelyard.models.load import check_load
from modelyard.models.manifest import Manifest
from modelyard.models.ports import UNSAFE_FORMATS
from modelyard.runtimes import RUNTIMES, detect

MAKERS = {"pickle": pickled, "python": python}
SAMPLES = (("pickle", "iris"), ("pickle", "diabetes"), ("python", "iris"))


class Kept:
    """A sample in its folder, and the model that was loaded from it once."""

    def __init__(self, sample: Sample, folder: Path) -> None:
        self.sample, self.folder = sample, folder
        runtime = RUNTIMES[sample.format]
        self.entry = runtime.detect(folder)
        options: dict[str, Any] = {**sample.options, "threads": 1, "jail": msgspec.structs.asdict(BOUNDS)}
        self.found = runtime.inspect(folder, str(self.entry), options)
        manifest = Manifest(self.found.format, self.found.entry, (), self.found.signature)
        self.loaded: LoadedModel = runtime.load(folder, manifest, options)


@pytest.fixture(scope="module", params=SAMPLES, ids="-".join)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """One format, trained on one table, in its jail for all tests of this page."""
    form, name = request.param
    folder = tmp_path_factory.mktemp(form)
    made = tmp_path_factory.mktemp("made")
    sample = MAKERS[form](name, folder if form == "python" else made)
    (folder / sample.name).write_bytes(sample.content)
    found = Kept(sample, folder)
    yield found
    found.loaded.close()


def test_it_is_known_by_its_content_and_refused_unless_allowed(kept: Kept) -> None:
    """No other runtime takes it; without leave it is format_not_allowed, with it, it is found."""
    form = kept.sample.format
    assert kept.entry == kept.sample.name
    assert [name for name, runtime in RUNTIMES.items() if runtime.detect(kept.folder)] == [form]
    with pytest.raises(PublishError) as refused:
        detect(kept.folder)
    assert refused.value.code == "format_not_allowed"
    assert "ONNX" in refused.value.message
    assert detect(kept.folder, [form]) == (RUNTIMES[form], kept.entry)
    assert form in UNSAFE_FORMATS


def test_the_signature_is_that_of_the_other_formats(kept: Kept) -> None:
    """One matrix in; label and probabilities out with the classes' names, or one number a row."""
    signature, sample = kept.loaded.signature, kept.sample
    assert signature == kept.found.signature
    assert [spec.shape for spec in signature.inputs] == [(-1, sample.rows.shape[1])]
    outputs = {spec.name: spec for spec in signature.outputs}
    assert outputs.keys() == sample.answers.keys()
    if sample.classes:
        assert outputs["probabilities"].labels == tuple(map(str, range(sample.classes)))


def test_the_answers_are_the_librarys_own(kept: Kept) -> None:
    """Every held-out row: pickles exactly, the class within rounding; also one output alone."""
    sample = kept.sample
    name = kept.loaded.signature.inputs[0].name
    got = kept.loaded.run({name: sample.rows}, ())
    for output, own in sample.answers.items():
        np.testing.assert_allclose(got[output], own, rtol=0, atol=sample.tolerance)
        alone = kept.loaded.run({name: sample.rows}, [output])
        assert list(alone) == [output]
        np.testing.assert_array_equal(alone[output], got[output])


def test_batched_is_unbatched_and_never_on_the_loop(kept: Kept) -> None:
    """P3: each row's answer in a batch is its answer alone."""
    profile = check_load(kept.loaded, None, 0.0, SystemClock())
    assert profile.batched
    assert not profile.in_loop


def test_wrong_rows_fail_with_a_code_and_hurt_nobody(kept: Kept) -> None:
    """A column less: model_failed from inside; the next run is answered."""
    name = kept.loaded.signature.inputs[0].name
    with pytest.raises(ModelError) as failed:
        kept.loaded.run({name: np.ascontiguousarray(kept.sample.rows[:, :-1])}, ())
    assert failed.value.code == "model_failed"
    assert kept.loaded.run({name: kept.sample.rows}, ()).keys() == kept.sample.answers.keys()


def test_closing_ends_the_process(tmp_path: Path) -> None:
    """A second close does nothing; a run afterwards is model_failed; no process and no shared memory stays."""
    from jailed import jailed, misdeed, python_model

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("modelyard-jail")

    before = mapped()
    loaded = jailed(python_model(tmp_path / "m"))
    assert misdeed(loaded, 0) == ""
    assert mapped() == before + 1
    pid = loaded.pid
    loaded.close()
    loaded.close()
    assert misdeed(loaded, 0) == "model_failed"
    assert not Path(f"/proc/{pid}").exists()
    assert mapped() == before


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_pickle_that_is_cut_off_is_refused(cut: int, tmp_path: Path) -> None:
    """Cut anywhere, or emptied: a code, at the detection or from the jail, in words without a path."""
    sample = pickled("diabetes", tmp_path)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(sample.content[:cut])

    def inspected() -> None:
        detect(folder, ["pickle"])
        RUNTIMES["pickle"].inspect(folder, "model.pkl", {"jail": msgspec.structs.asdict(BOUNDS)})

    with pytest.raises(PublishError) as refused:
        inspected()
    assert refused.value.code in ("model_empty", "format_unknown", "model_unreadable", "warm_up_failed")
    assert str(tmp_path) not in refused.value.message
