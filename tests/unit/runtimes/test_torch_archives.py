"""PyTorch: exported programs and TorchScript answer as the module does, and nothing in an archive runs."""

from __future__ import annotations

import io
import json
import pickle
import resource
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelyard.core.errors import ModelError, ModelyardError, PublishError
from modelyard.core.types import LoadedModel
from modelyard.models.manifest import Manifest
from modelyard.models.report import CheckOptions, Overrides, SignatureCompletion, TensorCompletion
from modelyard.runtimes import detect
from modelyard.runtimes.check import check_files
from modelyard.runtimes.child import check_in_child
from modelyard.runtimes.jail.model import JailedModel
from modelyard.runtimes.torch.guarded import guarded

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")
BATCH = torch.export.Dim("batch", min=1, max=4096)
LINE = SignatureCompletion(inputs=(TensorCompletion("x", "FP32", (-1, 4)),))


class Small(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        return self.layers(x)  # type: ignore[no-any-return]


class Image(nn.Module):
    """Convolution, normalisation, pooling, and a view that depends on the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.end = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 9, 5)
        self.pool, self.drop = nn.AdaptiveAvgPool2d(3), nn.Dropout()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and the class."""
        features = self.pool(torch.relu(self.norm(self.conv(x))))
        scores = self.end(self.drop(features.reshape(x.shape[0], -1)))
        return scores, scores.argmax(dim=1)


class Attention(nn.Module):
    """Embedding, attention, arithmetic on sizes, two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.mixed = nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, words: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """A mean over the words."""
        found = self.mixed(self.words(words))
        first, second = torch.split(found, [4, 4], dim=2)
        return (torch.cat([second, first], dim=2) * weight.unsqueeze(1)).mean(dim=1)


def _rows(*shape: int) -> Any:
    return torch.from_numpy(np.random.default_rng(7).standard_normal(shape).astype(np.float32))


WORDS = torch.from_numpy(np.random.default_rng(7).integers(0, 20, (6, 5)))
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "small": (Small, (_rows(6, 4),)),
    "image": (Image, (_rows(6, 1, 12, 12),)),
    "attention": (Attention, (WORDS, _rows(6, 8))),
}


def _export(module: nn.Module, inputs: tuple[Any, ...], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    shapes = tuple({0: BATCH} for _ in inputs)
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes), folder / "model.pt2")
    return folder


def _script(module: nn.Module, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    torch.jit.script(module.eval()).save(str(folder / "model.pt"))
    return folder


def _load(folder: Path, **options: Any) -> LoadedModel:
    runtime, entry = detect(folder)
    found = runtime.inspect(folder, entry, options)
    return runtime.load(folder, Manifest(found.format, entry, (), found.signature), {"threads": 1})


@pytest.mark.parametrize("case", MODELS)
def test_exported_programs_answer_as_the_module(tmp_path: Path, case: str) -> None:
    """Layers, convolutions and attention, any number of rows: the module's own answers, without PyTorch's loader."""
    make, inputs = MODELS[case]
    module = make().eval()
    loaded = _load(_export(module, inputs, tmp_path / "m"))
    assert [spec.shape[0] for spec in loaded.signature.inputs] == [-1] * len(inputs)
    for count in (1, 4, 6):
        parts = tuple(each[:count] for each in inputs)
        own = module(*parts)
        names = [spec.name for spec in loaded.signature.inputs]
        got = loaded.run({name: part.numpy() for name, part in zip(names, parts, strict=True)}, ())
        for expected, array in zip(own if isinstance(own, tuple) else (own,), got.values(), strict=True):
            np.testing.assert_allclose(array, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_publish_check_has_room_for_pytorch(tmp_path: Path) -> None:
    """Its own process, with the bounds that a publish has by default, loads and runs a program."""
    report = check_in_child(_export(Small(), (_rows(2, 4),), tmp_path / "m"), CheckOptions())
    assert (report.format, report.profile.batched, report.suffix) == ("torch_export", True, ".pt2")


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a pickle was loaded")


def test_no_pickle_of_an_archive_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example inputs in a `.pt2` are one; neither they nor anything else meets `torch.load`."""
    folder = _export(Small(), (_rows(2, 4),), tmp_path / "m")
    _script(Small(), tmp_path / "s")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, _never)
    monkeypatch.setattr(torch, "load", _never)
    monkeypatch.setattr(torch.export, "load", _never)
    _load(folder).run({"x": np.ones((2, 4), np.float32)}, ())
    with closing(_load(tmp_path / "s", signature=LINE)) as scripted:
        scripted.run({"x": np.ones((2, 4), np.float32)}, ())


def _rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (root,) = {name.partition("/")[0] for name in members}
    inner = {name.partition("/")[2]: content for name, content in members.items()}
    change(inner)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in inner.items():
            archive.writestr(f"{root}/{name}", content)
    return path


def _program(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def rewrite(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return rewrite


def _target(name: str) -> Callable[[dict[str, bytes]], None]:
    return _program(lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=name))


def _argument(target: str, name: str, value: Any, kind: int = 1) -> Callable[[dict[str, bytes]], None]:
    """The last node calls `target` on one tensor, with a whole number and this argument."""

    def change(program: dict[str, Any]) -> None:
        node = program["graph_module"]["graph"]["nodes"][-1]
        tensor = next(each for each in node["inputs"] if "as_tensor" in each["arg"])
        number = {"name": "dim", "arg": {"as_int": 1}, "kind": 1}
        node["inputs"] = [tensor, *([number] if kind == 1 else []), {"name": name, "arg": value, "kind": kind}]
        node["target"] = f"torch.ops.{target}"

    return _program(change)


def _weights(**about: Any) -> Callable[[dict[str, bytes]], None]:
    def rewrite(members: dict[str, bytes]) -> None:
        name = "data/weights/model_weights_config.json"
        config = json.loads(members[name])
        next(iter(config["config"].values())).update(about)
        members[name] = json.dumps(config).encode()

    return rewrite


def _long_view(members: dict[str, bytes]) -> None:
    name = "data/weights/model_weights_config.json"
    config = json.loads(members[name])
    next(iter(config["config"].values()))["tensor_meta"]["storage_offset"] = {"as_int": 1_000_000}
    members[name] = json.dumps(config).encode()


NOT_ALLOWED = "format_not_allowed"
HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "a function of the system": (_target("torch.os.system"), "format_not_allowed"),
    "the loader": (_target("torch.ops.aten.from_file.default"), "format_not_allowed"),
    "an unchecked index": (_target("torch.ops.aten._unsafe_index.Tensor"), "format_not_allowed"),
    "an index that is written to": (_target("torch.ops.aten._convert_indices_from_coo_to_csr.default"), NOT_ALLOWED),
    "sizes that are believed": (_target("torch.ops.aten.segment_reduce.default"), NOT_ALLOWED),
    "a view that is not looked at": (_target("torch.ops.aten._reshape_alias.default"), NOT_ALLOWED),
    "a packed sequence": (_target("torch.ops.aten.gru.data"), NOT_ALLOWED),
    "memory of others": (_target("torch.ops.aten.empty.memory_format"), NOT_ALLOWED),
    "memory of others, like this": (_target("torch.ops.aten.new_empty.default"), NOT_ALLOWED),
    "a result elsewhere": (_target("torch.ops.aten.add.out"), NOT_ALLOWED),
    "an attribute of the class": (_target("torch.ops.aten.__class__.default"), "format_not_allowed"),
    "no such operator": (_target("torch.ops.aten.nothing.default"), "format_not_allowed"),
    "a higher order": (_target("torch.ops.higher_order.cond"), "format_not_allowed"),
    "a pickled weight": (_weights(use_pickle=True), "format_not_allowed"),
    "a weight elsewhere": (_weights(path_name="../../etc/passwd"), "model_unreadable"),
    "a view beyond the bytes": (_long_view, "model_unreadable"),
    "a compiled library": (lambda m: m.update({"data/aotinductor/model/x.so": b"\x7fELF"}), "format_not_allowed"),
    "no program": (lambda m: m.pop("models/model.json") and None, "format_not_allowed"),
    "a number for a datatype": (_argument("aten.softmax.int", "dtype", {"as_int": -1}), NOT_ALLOWED),
    "a number for a layout": (_argument("aten._to_copy.default", "layout", {"as_int": 99}, kind=2), NOT_ALLOWED),
    "a later schema": (_program(lambda p: p["schema_version"].update(major=99)), "format_not_allowed"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_could_run_in_an_exported_program_is_refused(tmp_path: Path, case: str) -> None:
    """P8: functions by name, libraries, pickles, operators that trust their indices, views beyond the bytes."""
    change, code = HOSTILE[case]
    folder = _export(Small(), (_rows(2, 4),), tmp_path / "m")
    _rewrite(folder / "model.pt2", change)
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions())
    assert refused.value.code == code
    assert str(tmp_path) not in refused.value.message


def test_a_check_in_this_process_bounds_nothing_of_it(tmp_path: Path) -> None:
    """What a jailed format may share counts as written; the bound is raised for it where there is one, never set."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with suppress(PublishError):  # it says no signature; the bound comes before that
        check_files(_script(Small(), tmp_path / "m"), CheckOptions())
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


def test_operators_that_believe_their_tensors_are_looked_at() -> None:
    """P8: a normalisation reads a number for each channel, attention a value for each key, and there are fewer: what
    lies behind them is memory of the server. What fits answers as before."""
    name = "_native_batch_norm_legit_no_training"
    norm = guarded(name, getattr(torch.ops.aten, name).default)
    one, two, image = torch.ones(1), torch.ones(2), torch.ones(1, 2, 3, 3)
    assert norm(image, two, two, two, two, 0.1, 1e-5)[0].shape == image.shape
    for wrong in range(4):
        given = [one if i == wrong else two for i in range(4)]
        with pytest.raises(ValueError, match="do not fit"):
            norm(image, *given, 0.1, 1e-5)
    with pytest.raises(ValueError, match="do not fit"):
        norm(image, two, two, momentum=0.1, eps=1e-5, running_mean=one, running_var=two)
    own = guarded("_native_batch_norm_legit", torch.ops.aten._native_batch_norm_legit.no_stats)
    assert own(image, two, two, True, 0.1, 1e-5)[0].shape == image.shape
    with pytest.raises(ValueError, match="do not fit"):  # no training, and no statistics: they would be read at 0
        own(image, two, two, False, 0.1, 1e-5)
    attention = guarded("scaled_dot_product_attention", torch.ops.aten.scaled_dot_product_attention.default)
    query, keys, mask = torch.ones(1, 1, 4, 8), torch.ones(1, 1, 6, 8), torch.ones(4, 6)
    assert attention(query, keys, keys, mask).shape == query.shape
    for wrong in ((query, keys, keys[:, :, :2]), (query, keys[..., :4], keys), (query, keys, keys, torch.ones(4, 5)),
                  (query, keys, keys[0], None), (query[0, 0, 0], keys, keys)):  # fmt: skip
        with pytest.raises(ValueError, match="do not fit"):
            attention(*wrong)


def test_texts_of_an_exported_program_are_never_evaluated(tmp_path: Path) -> None:
    """Guards, expressions and example inputs that would write a file are ignored: the program still answers."""
    ran = tmp_path / "ran"
    evil = f"__import__('pathlib').Path({str(ran)!r}).write_text('ran')"

    class Gadget:
        def __reduce__(self) -> Any:
            return exec, (evil,)

    def plant(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        program["guards_code"] = [evil]
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = evil
        members["models/model.json"] = json.dumps(program).encode()
        members["data/sample_inputs/model.pt"] = pickle.dumps(Gadget())

    folder = _export(Small(), (_rows(2, 4),), tmp_path / "m")
    _rewrite(folder / "model.pt2", plant)
    assert check_files(folder, CheckOptions()).profile.batched
    assert not ran.exists()


def test_script_answers_as_the_module(tmp_path: Path) -> None:
    """With the signature stated, or an example; the owner's names are `forward`'s."""
    module = Small().eval()
    folder = _script(module, tmp_path / "m")
    example = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}
    rows = _rows(6, 4)
    report = check_files(folder, CheckOptions(overrides=Overrides(example=example)))
    assert report.profile.batched
    assert not report.profile.in_loop
    assert [(s.name, s.datatype, s.shape) for s in report.signature.outputs] == [("output", "FP32", (-1, 3))]
    with closing(_load(folder, signature=LINE)) as loaded:
        assert loaded.signature == report.signature
        got = loaded.run({"x": rows.numpy()}, ())
    np.testing.assert_allclose(got["output"], module(rows).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_script_without_a_signature_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """It says what is missing and shows how it looks; names that are not `forward`'s are a conflict."""
    folder = _script(Small(), tmp_path / "m")
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions())
    assert refused.value.code == "manifest_invalid"
    assert "state `signature.inputs`" in refused.value.message
    other = SignatureCompletion(inputs=(TensorCompletion("rows", "FP32", (-1, 4)),))
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions(overrides=Overrides(signature=other)))
    assert refused.value.code == "signature_conflict"


class Leaking(nn.Module):
    """Gives out memory that nothing was written to, and writes where an index says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Whatever lies there."""
        if bool(x.sum() > 1000):
            x = x + torch._convert_indices_from_coo_to_csr(x[0, :1].long() * 100_000, 4).sum()
        return torch.empty([100_000]) + x.sum() * 0 + torch.zeros([x.shape[0], 1])


def test_script_runs_in_a_jail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: PyTorch's operators believe what they are told. What a module in TorchScript reads is memory of its own
    process, and one that writes past its own ends that process alone; this one's PyTorch never meets it."""
    folder = _script(Leaking(), tmp_path / "m")
    monkeypatch.setattr(torch.jit, "load", _never)
    secret = b"a key of the server"
    with closing(_load(folder, signature=LINE)) as loaded:
        assert isinstance(loaded, JailedModel)
        for _ in range(3):
            held = [bytearray(secret * 20_000) for _ in range(3)]
            del held  # and PyTorch would give it out next
            assert secret not in loaded.run({"x": np.ones((1, 4), np.float32)}, ())["output"].tobytes()
        with pytest.raises(ModelError) as failed:
            loaded.run({"x": np.full((1, 4), 1000, np.float32)}, ())
        assert failed.value.code == "model_crashed"


class Writing(nn.Module):
    """Writes a file with an operator of PyTorch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same."""
        torch.save(x, "written")
        return x


class Reading(nn.Module):
    """Reads one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Its content."""
        return x + torch.from_file("/etc/hostname", False, 4, dtype=torch.uint8)


@pytest.mark.parametrize("make", [Writing, Reading])
def test_script_that_reaches_outside_is_refused_before_it_is_loaded(
    tmp_path: Path, make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: operators that read or write files are found in the source; PyTorch never sees the archive."""
    folder = _script(make(), tmp_path / "m")
    monkeypatch.setattr(torch.jit, "load", _never)
    with pytest.raises(PublishError) as refused:
        check_files(folder, CheckOptions(overrides=Overrides(signature=LINE)))
    assert refused.value.code == "format_not_allowed"


def test_a_checkpoint_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """`torch.save` of a state or of a module, in both of its forms, is a pickle, whatever it is called."""
    for number, (name, kwargs) in enumerate(
        [("model.pt", {}), ("model.pth", {"_use_new_zipfile_serialization": False})]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(Small().state_dict(), folder / name, **kwargs)
        with pytest.raises(PublishError) as refused:
            check_files(folder, CheckOptions())
        assert refused.value.code == "format_not_allowed"
        assert refused.value.detail["got"] == "pickle"


def test_archives_that_are_cut_off_are_unreadable(tmp_path: Path) -> None:
    """Cut anywhere, both kinds."""
    for make in (lambda folder: _export(Small(), (_rows(2, 4),), folder) / "model.pt2",
                 lambda folder: _script(Small(), folder) / "model.pt"):  # fmt: skip
        whole = make(tmp_path / "whole")
        content = whole.read_bytes()
        whole.unlink()
        for cut in range(64, len(content) - 1, len(content) // 8):
            folder = tmp_path / f"{whole.suffix}{cut}"
            folder.mkdir()
            (folder / "model").write_bytes(content[:cut])
            with pytest.raises(ModelyardError) as refused:
                check_files(folder, CheckOptions(overrides=Overrides(signature=LINE)))
            assert refused.value.code == "model_unreadable"


def test_an_archive_in_an_archive_is_not_looked_at(tmp_path: Path) -> None:
    """Readers of zip files differ in where they look: what begins with something else is damaged, whoever can read
    it, and PyTorch gets an archive of the members that were checked."""
    whole = _script(Small(), tmp_path / "s") / "model.pt"
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.pt").write_bytes(_rewrite_first(whole) + whole.read_bytes())
    with pytest.raises(PublishError) as refused:
        check_files(tmp_path / "m", CheckOptions(overrides=Overrides(signature=LINE)))
    assert refused.value.code == "model_unreadable"


def _rewrite_first(path: Path) -> bytes:
    """The first entry of an archive, without its directory."""
    with zipfile.ZipFile(path) as archive:
        return path.read_bytes()[: archive.infolist()[1].header_offset]


def test_a_source_that_hides_a_name_is_refused(tmp_path: Path) -> None:
    """By `getattr` with a text, or over lines: the names are found all the same."""
    folder = _script(Small(), tmp_path / "m")
    for line in (
        'getattr(torch, "save")(x, "written")',
        "torch.save(x, 'w')",
        "torch . from_file('w')",
        "ops.evil.f(x)",
    ):

        def plant(members: dict[str, bytes], line: str = line) -> None:
            name = next(name for name in members if name.startswith("code/") and name.endswith(".py"))
            members[name] += f"\n\ndef planted(x):\n  return {line}\n".encode()

        _rewrite(folder / "model.pt", plant)
        with pytest.raises(PublishError) as refused:
            check_files(folder, CheckOptions(overrides=Overrides(signature=LINE)))
        assert refused.value.code == "format_not_allowed", line
        _script(Small(), folder)


def test_the_buffer_form_is_known_too(tmp_path: Path) -> None:
    """An archive that was written to memory has another name around everything."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Small().eval()), buffer)
    (tmp_path / "anything").write_bytes(buffer.getvalue())
    assert detect(tmp_path)[0].format == "torchscript"
