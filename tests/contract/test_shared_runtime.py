"""A version that all workers share answers as one in the worker does; its process is private and knows no secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import numpy as np
import pytest
from runtime_samples import SAMPLES, Sample  # type: ignore[import-not-found]

from modelyard.core.clock import SystemClock
from modelyard.core.errors import InvalidRequestError, PublishError, UnavailableError
from modelyard.core.settings import load_settings
from modelyard.models.load import check_load
from modelyard.models.ports import holder, is_shared
from modelyard.models.stage import hash_folder
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.shared.model import SharedModel
from sharedmodels import ask, bounded, doubling, lives, manifest_of, shared, until
from sharedmodels.hosts import hosts_of

SHARED_FORMS = ("onnx", "sklearn", "lightgbm", "xgboost-json", "xgboost-ubj", "torch-export", "tensorflow")


def _check_answers(form: str, name: str, tmp_path: Path) -> None:
    sample: Sample = SAMPLES[form](name, tmp_path)
    folder = sample.write(tmp_path / "m")
    manifest = manifest_of(sample.format, folder, **sample.options)
    own = RUNTIMES[sample.format].load(folder, manifest, {"threads": 1})
    models = [shared((folder, manifest), tmp_path / "run") for _ in range(2)]
    assert models[0].pid == models[1].pid != os.getpid()
    given = manifest.signature.inputs[0].name
    last = manifest.signature.outputs[-1].name
    for loaded in models:
        for rows in (sample.rows, sample.rows[:1], sample.rows[::2].copy()):
            for wanted in ((), (last,)):
                expected, found = own.run({given: rows}, wanted), loaded.run({given: rows}, wanted)
                assert list(found) == list(expected)
                for output, array in expected.items():
                    assert found[output].dtype == array.dtype
                    np.testing.assert_array_equal(found[output], array)
    assert check_load(models[0], None, 0.0, SystemClock()).batched
    for loaded in models:
        loaded.close()


@pytest.mark.parametrize("form", ["onnx", "sklearn", "lightgbm", "xgboost-ubj"])
def test_answers_are_those_of_the_worker(form: str, tmp_path: Path) -> None:
    """Real rows, single and together, all outputs and one: bit for bit, of the same types; the load check finds the
    same; two workers have one process."""
    _check_answers(form, "iris", tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
@pytest.mark.parametrize("form", SHARED_FORMS)
def test_answers_of_every_format_are_those_of_the_worker(form: str, name: str, tmp_path: Path) -> None:
    """The same for every format that can be shared, on two larger tables. PyTorch's sums differ in the last bit with
    how their inputs lie in memory, so rows are given in C order, as they come over there."""
    _check_answers(form, name, tmp_path)


def test_text_goes_both_ways(tmp_path: Path) -> None:
    """BYTES in and out; what is no UTF-8 is refused in the worker's own words."""
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("said", "heard")]
    graph = helper.make_graph([helper.make_node("Identity", ["said"], ["heard"])], "echo", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "m"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    manifest = manifest_of("onnx", folder)
    loaded = shared((folder, manifest), tmp_path / "run")
    own = RUNTIMES["onnx"].load(folder, manifest, {"threads": 1})
    given = np.array([b"", "été".encode(), bytes(3), b"x" * 10_000], dtype=object)
    np.testing.assert_array_equal(loaded.run({"said": given}, ())["heard"], given)
    refusals = []
    for each in (own, loaded):
        with pytest.raises(InvalidRequestError) as refused:
            each.run({"said": np.array([b"\xff"], dtype=object)}, ())
        refusals.append((refused.value.code, refused.value.message, dict(refused.value.detail)))
    assert refusals[0] == refusals[1]
    loaded.close()


def test_what_cannot_be_loaded_is_refused_as_in_the_worker(tmp_path: Path) -> None:
    """The same code and sentence for every worker, and no process stays."""
    folder, whole = doubling(tmp_path / "m")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-40])
    manifest = msgspec.structs.replace(whole, files=tuple(hash_folder(folder, 10**6)))
    with pytest.raises(PublishError) as expected:
        RUNTIMES["onnx"].load(folder, manifest, {"threads": 1})
    for _ in range(2):
        with pytest.raises(PublishError) as refused:
            shared((folder, manifest), tmp_path / "run")
        assert (refused.value.code, refused.value.message) == (expected.value.code, expected.value.message)
    until(lambda: not hosts_of(os.getpid(), manifest.digest()), "the end of its process")


def test_files_that_are_not_the_published_ones_are_not_loaded(tmp_path: Path) -> None:
    """P5: the process verifies what it loads, whatever a worker saw before; put right, the files are loaded at once,
    and not out of the process that was wrong."""
    folder, manifest = doubling(tmp_path / "m")
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content.replace(b"doubling", b"doublimg"))
    with pytest.raises(UnavailableError) as refused:
        shared((folder, manifest), tmp_path / "run")
    assert refused.value.code == "model_not_ready"
    (folder / "model.onnx").write_bytes(content)
    until(lambda: not hosts_of(os.getpid(), manifest.digest()), "the end of its process")
    loaded = shared((folder, manifest), tmp_path / "run")
    assert ask(loaded, 3) == ""
    loaded.close()


def test_the_process_is_private_and_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of its socket is the owner's alone, however long its path; nothing of our environment is in its own,
    and none of our descriptors but the socket."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("MODELYARD_DATABASE__URL", "postgresql://u:p@h/d")
    run = tmp_path / ("long" * 30) / "run"
    version = doubling(tmp_path / "m")
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        loaded = shared(version, run)
        links = {os.readlink(path) for path in Path(f"/proc/{loaded.pid}/fd").iterdir() if path.is_symlink()}
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    environment = Path(f"/proc/{loaded.pid}/environ").read_bytes()
    assert b"a-secret" not in environment
    assert b"MODELYARD_" not in environment
    assert str(tmp_path / "ours") not in links
    assert lives(loaded.pid)
    loaded.close()


def test_which_versions_are_shared(tmp_path: Path) -> None:
    """Large enough, several workers, and no format whose files are programs."""
    _, manifest = doubling(tmp_path / "m")
    size = manifest.files[0].size_bytes

    def held_once(form: str = "onnx", **flags: int) -> bool:
        said = {"workers": 2, "models.shared_from_bytes": size, **flags}
        return is_shared(msgspec.structs.replace(manifest, format=form), load_settings(**said))

    assert held_once()
    assert held_once("torch_export")
    assert not held_once(workers=1)
    assert not held_once("python")
    assert not held_once("pickle")
    assert not held_once(**{"models.shared_from_bytes": size + 1})
    assert not held_once(**{"models.shared_from_bytes": 0})
    assert load_settings().models.shared_from_bytes == 256 * 1024**2
    assert holder(manifest, load_settings(**{"workers": 2, "models.shared_from_bytes": size})) == "shared_process"
    assert holder(manifest, load_settings(workers=2)) == "worker"
    assert holder(msgspec.structs.replace(manifest, format="pickle"), load_settings(workers=2)) == "jail"


def test_a_large_file_has_time_to_be_read(tmp_path: Path) -> None:
    """models.publish_timeout_s, and what a slow disk takes."""
    from modelyard.models.manifest import FileEntry
    from modelyard.runtimes.shared.runtime import SLOW_DISK_BYTES_S, patient

    _, manifest = doubling(tmp_path / "m")
    large = msgspec.structs.replace(manifest, files=(FileEntry("model.onnx", "", 90 * SLOW_DISK_BYTES_S),))
    assert patient(bounded(load_s=120.0), large).load_s == 210.0


def test_small_versions_stay_in_the_worker(tmp_path: Path) -> None:
    """Below the bound the runtime is the worker's own."""
    from modelyard.runtimes.shared.runtime import Meeting, SharedRuntimes

    folder, manifest = doubling(tmp_path / "m")
    runtimes = SharedRuntimes(RUNTIMES, load_settings(workers=4), Meeting(tmp_path / "run", 1, os.getpid()))
    assert set(runtimes) == set(RUNTIMES)
    loaded = runtimes["onnx"].load(folder, manifest, {"threads": 1})
    assert not isinstance(loaded, SharedModel)
    assert not (tmp_path / "run").exists()
