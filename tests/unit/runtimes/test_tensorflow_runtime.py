"""TensorFlow SavedModels: what computes is served as TensorFlow answers; what reaches out is refused by its name."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.core.errors import ModelError, PublishError
from modelyard.core.types import Array
from modelyard.models.manifest import Manifest
from modelyard.models.report import CheckOptions
from modelyard.runtimes import detect
from modelyard.runtimes.check import check_files
from modelyard.runtimes.folders import describe
from modelyard.runtimes.tensorflow.operators import COMPUTING, RESTORING
from modelyard.runtimes.tensorflow.runtime import TensorflowRuntime, import_tensorflow
from modelyard.runtimes.tensorflow.saved_model import functions_of, read_program
from modelyard.runtimes.tensorflow.schema import message

RUNTIME = TensorflowRuntime()
PB = "saved_model.pb"


@pytest.fixture(scope="module")
def tf() -> Any:
    """TensorFlow, which takes its time to import."""
    return import_tensorflow()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of this module lie."""
    return tmp_path_factory.mktemp("saved")


def test_its_symbols_are_its_own(tf: Any) -> None:
    """TensorFlow's OpenSSL is nobody else's: with it in front, PostgreSQL's client crashes at a TLS connection."""
    assert tf.__version__
    assert not hasattr(ctypes.CDLL(None), "SSL_new")


def _save(tf: Any, folder: Path, function: Any, *specs: Any, **held: Any) -> Path:
    """A module of one function over these specs; `held` keeps its variables and tables."""
    module = tf.Module()
    for name, each in held.items():
        setattr(module, name, each)
    module.answer = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(folder), signatures=module.answer)
    return folder


def _load(folder: Path) -> Any:
    runtime, entry = detect(folder)
    found = runtime.inspect(folder, entry, {})
    return runtime.load(folder, Manifest(found.format, entry, (), found.signature), {"threads": 1})


def _keras(tf: Any, kind: str) -> tuple[Any, Array]:
    layers, draw = tf.keras.layers, np.random.default_rng(0)
    if kind == "dense":
        stack = [layers.Input((4,)), layers.Dense(8, activation="gelu"), layers.Dense(3, activation="softmax")]
        rows = draw.standard_normal((5, 4))
    elif kind == "convolution":
        stack = [layers.Input((12, 12, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.MaxPool2D(),
                 layers.Dropout(0.5), layers.Flatten(), layers.Dense(2)]  # fmt: skip
        rows = draw.standard_normal((3, 12, 12, 3))
    else:
        stack = [layers.Input((7, 5)), layers.LSTM(6), layers.Dense(2)]
        rows = draw.standard_normal((4, 7, 5))
    return tf.keras.Sequential(stack), rows.astype(np.float32)


@pytest.mark.parametrize("kind", ["dense", "convolution", "recurrent"])
def test_keras_by_export(tf: Any, place: Path, kind: str) -> None:
    """`model.export` of dense, convolutional and recurrent networks: the answers are Keras' own."""
    model, rows = _keras(tf, kind)
    model.export(str(place / kind), verbose=False)
    loaded = _load(place / kind)
    (given,), (answer,) = loaded.signature.inputs, loaded.signature.outputs
    assert given.shape == (-1, *rows.shape[1:])
    got = loaded.run({given.name: rows}, ())[answer.name]
    np.testing.assert_allclose(got, model(rows).numpy(), rtol=1e-5, atol=1e-6)
    loaded.close()


def test_variables_tables_and_text(tf: Any, place: Path) -> None:
    """Variables are read from the folder's checkpoint, tables are filled, text goes in and out, inputs keep their
    names; the folder is checked as at a publish."""
    weights = tf.Variable(np.arange(8, dtype=np.float32).reshape(4, 2))
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    table = tf.lookup.StaticHashTable(pairs, -1)

    def answer(x: Any, word: Any) -> Any:
        return {"y": x @ weights, "number": table.lookup(word), "loud": tf.strings.upper(word)}

    specs = (tf.TensorSpec([None, 4], tf.float32, "x"), tf.TensorSpec([None], tf.string, "word"))
    folder = _save(tf, place / "table", answer, *specs, weights=weights, table=table)
    loaded = _load(folder)
    assert [(spec.name, spec.datatype) for spec in loaded.signature.inputs] == [("word", "BYTES"), ("x", "FP32")]
    words = np.array([b"b", b"none"], object)
    got = loaded.run({"x": np.ones((2, 4), np.float32), "word": words}, ())
    np.testing.assert_array_equal(got["y"], np.ones((2, 4), np.float32) @ weights.numpy())
    assert (got["number"].tolist(), got["loud"].tolist()) == ([2, -1], [b"B", b"NONE"])
    report = check_files(folder, CheckOptions())
    assert (report.format, report.entry, report.profile.batched) == ("tensorflow", PB, True)
    assert report.provenance["tensorflow"] == tf.__version__


def test_weights_that_begin_like_another_format(dense: Path) -> None:
    """Bare numbers may begin with any bytes: what lies in `variables/` is never taken for a model."""
    (data,) = (dense / "variables").glob("variables.data-*")
    data.write_bytes(b"\x3a\xff\xff\x07" + data.read_bytes()[4:])
    runtime, entry = detect(dense)
    assert (runtime.format, entry) == ("tensorflow", PB)


def _long(x: Any) -> Any:
    for _ in range(210):
        x = -x
    return {"y": x}


def test_only_a_short_program_runs_in_the_callers_thread(tf: Any, place: Path, dense: Path) -> None:
    """What may go deep on the caller's stack (loops, many nodes, a function from several places) keeps the threads of
    the session; all answer as TensorFlow does."""
    spec = tf.TensorSpec([None, 4], tf.float32, "x")
    halved = tf.function(lambda x: x / 2, input_signature=[spec])
    turns: Any = {
        "once": lambda x: {"y": tf.nn.relu(x @ tf.ones((4, 2)))},
        "loop": lambda x: {"y": tf.while_loop(lambda i, a: i < 9, lambda i, a: (i + 1, a * 2), (tf.size(x), x))[1]},
        "long": _long,
        "twice": lambda x: {"y": halved(halved(x))},
    }
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    for name, answer in turns.items():
        folder = _save(tf, place / f"turns-{name}", answer, spec, halved=halved)
        assert read_program(folder / PB).short is (name == "once"), name
        loaded = _load(folder)
        np.testing.assert_array_equal(loaded.run({"x": rows}, ())["y"], answer(tf.constant(rows))["y"].numpy())
        loaded.close()
    assert read_program(dense / PB).short


def test_outputs_that_are_one_tensor_or_an_input(dense: Path) -> None:
    """Two names for one output, and one for an input as it came: each is answered."""
    model = message("SavedModel").FromString((dense / PB).read_bytes())
    served = model.meta_graphs[0].signature_def["serving_default"]
    (given,), (answer,) = served.inputs, served.outputs
    served.outputs["again"].CopyFrom(served.outputs[answer])
    rows = np.ones((3, 4), np.float32)
    for more in (False, True):
        if more:
            served.outputs["same"].CopyFrom(served.inputs[given])
        (dense / PB).write_bytes(model.SerializeToString())
        loaded = _load(dense)
        got = loaded.run({given: rows}, ())
        np.testing.assert_array_equal(got["again"], got[answer])
        assert not more or np.array_equal(got["same"], rows)
        loaded.close()


def test_missing_variables_are_named(tf: Any, place: Path, tmp_path: Path) -> None:
    """A graph without its checkpoint, as a file published alone would be, or with a damaged one."""
    model, _ = _keras(tf, "dense")
    model.export(str(tmp_path / "m"), verbose=False)
    index = tmp_path / "m" / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:50])
    with pytest.raises(PublishError) as refused:
        _load(tmp_path / "m")
    assert refused.value.code == "model_unreadable"
    assert str(tmp_path) not in refused.value.message
    shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(PublishError) as refused:
        _load(tmp_path / "m")
    assert "variables/variables.index" in refused.value.message


Reach = Callable[[Any], Callable[[Any], Any]]
REACHING: dict[str, Reach] = {
    "WriteFile": lambda tf: lambda x: _after(tf, tf.io.write_file("/tmp/never", x[0]), x),
    "ReadFile": lambda tf: lambda x: {"y": tf.io.read_file("/etc/hostname")[None]},
    "MatchingFiles": lambda tf: lambda x: {"y": tf.io.matching_files("/*")},
    "PyFunc": lambda tf: lambda x: {"y": tf.compat.v1.py_func(lambda v: v, [x], tf.string)},
    "EagerPyFunc": lambda tf: lambda x: {"y": tf.py_function(lambda v: v, [x], tf.string)},
    "PrintV2": lambda tf: lambda x: _after(tf, tf.print(x, output_stream="file:///tmp/never"), x),
    "DecodeJpeg": lambda tf: lambda x: {"y": tf.strings.as_string(tf.io.decode_jpeg(x[0]))},
    "SaveV2": lambda tf: (
        lambda x: _after(
            tf, tf.raw_ops.SaveV2(prefix="/tmp/never", tensor_names=["a"], shape_and_slices=[""], tensors=[x]), x
        )
    ),
    "RestoreV2": lambda tf: (
        lambda x: {
            "y": tf.raw_ops.RestoreV2(prefix=x[0], tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.string])[0]
        }
    ),
}


def _after(tf: Any, operation: Any, x: Any) -> Any:
    with tf.control_dependencies([operation] if operation is not None else []):
        return {"y": tf.identity(x)}


@pytest.fixture(scope="module", params=REACHING)
def reaching(request: pytest.FixtureRequest, tf: Any, place: Path) -> tuple[str, Path]:
    """A model with one operator that reaches outside."""
    name = request.param
    return name, _save(tf, place / name, REACHING[name](tf), tf.TensorSpec([None], tf.string, "x"))


def test_what_reaches_outside_is_refused_by_name(reaching: tuple[str, Path]) -> None:
    """Files, Python, printing, decoders, checkpoints: format_not_allowed names the operator, and nothing of it ran."""
    name, folder = reaching
    with pytest.raises(PublishError) as refused:
        read_program(folder / PB)
    assert refused.value.code == "format_not_allowed"
    assert f"`{name}`" in refused.value.message
    assert not Path("/tmp/never").exists()


def test_state_that_changes_is_refused(tf: Any, place: Path) -> None:
    """A model that counts its calls would answer two callers differently."""
    count = tf.Variable(0.0)
    folder = _save(
        tf, place / "count", lambda x: {"y": x + count.assign_add(1.0)}, tf.TensorSpec([None], tf.float32, "x"),
        count=count,
    )  # fmt: skip
    with pytest.raises(PublishError) as refused:
        read_program(folder / PB)
    assert "`AssignAddVariableOp`" in refused.value.message


def _changed(folder: Path, change: Callable[[Any], None]) -> PublishError:
    model = message("SavedModel").FromString((folder / PB).read_bytes())
    change(model.meta_graphs[0])
    (folder / PB).write_bytes(model.SerializeToString())
    with pytest.raises(PublishError) as refused:
        read_program(folder / PB)
    return refused.value


@pytest.fixture
def dense(tf: Any, place: Path, tmp_path: Path) -> Path:
    """A copy of a dense network's export."""
    if not (place / "spare").exists():
        _keras(tf, "dense")[0].export(str(place / "spare"), verbose=False)
    return Path(shutil.copytree(place / "spare", tmp_path / "m"))


def _first_restore(meta: Any) -> Any:
    functions = functions_of(meta.graph_def)
    return next(node for each in functions for node in each.node_def if node.op == "RestoreV2")


def test_another_checkpoint_is_not_read(dense: Path) -> None:
    """The restoring part may read the path that it is given, not one that the file names."""

    def elsewhere(meta: Any) -> None:
        _first_restore(meta).input[0] = "RestoreV2/tensor_names:output:0"

    assert "another checkpoint" in _changed(dense, elsewhere).message


def test_a_caller_cannot_give_another_path(dense: Path) -> None:
    """Nor may the graph call the restoring function with a path of its own."""

    def elsewhere(meta: Any) -> None:
        restore = meta.saver_def.restore_op_name
        node = next(node for node in meta.graph_def.node if node.name == restore)
        node.input[0] = next(each.name for each in meta.graph_def.node if each.op == "Const")

    assert "another checkpoint" in _changed(dense, elsewhere).message


def test_what_hides_in_the_restoring_part(dense: Path) -> None:
    """An operator that is not allowed is found in every part that would run, also where the file restores itself."""

    def hidden(meta: Any) -> None:
        functions = functions_of(meta.graph_def)
        each = next(each for each in functions if any(node.op == "RestoreV2" for node in each.node_def))
        each.node_def.add(name="hidden", op="WriteFile")

    assert "`WriteFile`" in _changed(dense, hidden).message


def test_what_hides_in_the_initialiser(dense: Path) -> None:
    """The operation that fills tables at the start is a root of its own."""

    def hidden(meta: Any) -> None:
        meta.graph_def.node.add(name="hidden", op="ReadFile")
        name = next(iter(meta.signature_def["__saved_model_init_op"].outputs.values())).name
        next(node for node in meta.graph_def.node if node.name == name).input.append("^hidden")

    assert "`ReadFile`" in _changed(dense, hidden).message


@pytest.mark.parametrize(
    "trick", ["tags", "signatures", "no node", "no function", "no rank", "type", "newline", "huge"]
)
def test_graphs_that_cannot_be_served(dense: Path, trick: str) -> None:
    """Each has a code and a sentence."""

    def change(meta: Any) -> None:
        given = meta.signature_def["serving_default"].inputs
        (name,) = given
        if trick == "tags":
            del meta.meta_info_def.tags[:]
        elif trick == "signatures":
            del meta.signature_def["serving_default"]
            meta.signature_def["other"].method_name = "x"
        elif trick == "no node":
            given[name].name = "nowhere:0"
        elif trick == "no function":
            del functions_of(meta.graph_def)[:]
        elif trick == "no rank":
            given[name].tensor_shape.unknown_rank = True
        elif trick == "type":
            given[name].dtype = 8
        elif trick == "huge":
            given[name].tensor_shape.dim[1].size = 2**40
        else:
            given["a\nb"].CopyFrom(given[name])
            del given[name]

    assert _changed(dense, change).code in ("format_not_allowed", "model_unreadable")


def test_words_to_the_runtime_are_dropped(dense: Path) -> None:
    """Devices, compilers and kernels that the file asks for do not reach TensorFlow, nor does what nobody calls."""
    model = message("SavedModel").FromString((dense / PB).read_bytes())
    meta = model.meta_graphs[0]
    meta.graph_def.node.add(name="unused", op="WriteFile")
    for node in meta.graph_def.node:
        node.device = "/job:elsewhere"
        node.attr["_kernel"].func.name = ""
        node.attr["_XlaMustCompile"].func.name = ""
    (dense / PB).write_bytes(model.SerializeToString())
    graph = message("Graph").FromString(read_program(dense / PB).graph)
    assert "unused" not in {node.name for node in graph.node}
    every = [*graph.node, *(node for each in functions_of(graph) for node in each.node_def)]
    assert {node.device for node in every} == {""}
    assert not {name for node in every for name in node.attr} & {"_kernel", "_XlaMustCompile", "_class", "config_proto"}
    assert "SaveV2" not in {node.op for node in every}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_files_have_a_sentence(tf: Any, tmp_path: Path) -> None:
    """`.keras` and HDF5 hold Python by name; the refusal says how to export."""
    model, _ = _keras(tf, "dense")
    for name in ("m.keras", "anything"):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name / "model.keras")
        (tmp_path / name / "model.keras").rename(tmp_path / name / name)
        with pytest.raises(PublishError) as refused:
            detect(tmp_path / name)
        assert refused.value.code == "format_not_allowed"
        assert "model.export('folder')" in refused.value.message
    (tmp_path / "m.h5").mkdir()
    (tmp_path / "m.h5" / "m").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(PublishError) as refused:
        detect(tmp_path / "m.h5")
    assert "model.export('folder')" in refused.value.message


def test_wrong_input_is_refused(dense: Path) -> None:
    """A shape that the graph does not take never reaches TensorFlow."""
    loaded = _load(dense)
    name = loaded.signature.inputs[0].name
    for shape in ((2, 5), (4,), (1, 1, 4)):
        with pytest.raises(ModelError):
            loaded.run({name: np.ones(shape, np.float32)}, ())


@pytest.mark.long
def test_it_says_nothing_by_itself(dense: Path) -> None:
    """A worker's standard error is the event log: importing, loading and running writes no line there."""
    code = (
        "import sys; from pathlib import Path; from modelyard.models.report import CheckOptions; "
        "from modelyard.runtimes.check import check_files; check_files(Path(sys.argv[1]), CheckOptions())"
    )
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("TF_", "CUDA_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(dense)], env=clean, capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_operator_of_the_list_exists(tf: Any) -> None:
    """No name of the list is a slip, and none of those that are known to reach out is on it."""
    from tensorflow.python.framework import op_def_registry

    assert [name for name in sorted(COMPUTING | RESTORING) if op_def_registry.get(name) is None] == []
    words = ("File", "Py", "Print", "Decode", "Summary", "Dataset", "Rpc", "Queue", "Reader", "Save", "Assign", "Debug")
    reaching = [name for name in COMPUTING for word in words if word in name]
    assert set(reaching) <= {"UnicodeDecodeWithOffsets"}


def test_by_mlflow(dense: Path, tmp_path: Path) -> None:
    """A `tf.Module` that MLflow logged; its file of Keras is refused."""
    folder = tmp_path / "logged"
    folder.mkdir()
    shutil.copytree(dense, folder / "tf2model")
    (folder / "MLmodel").write_text(
        "flavors:\n  tensorflow:\n    saved_model_dir: tf2model\n    model_type: tf2-module\n"
    )
    assert (describe(folder).format, describe(folder).entry) == ("tensorflow", f"tf2model/{PB}")
    (folder / "data").mkdir()
    (folder / "data" / "model.keras").write_bytes(b"PK")
    for flavour in ("tensorflow", "keras"):
        (folder / "MLmodel").write_text(f"flavors:\n  {flavour}:\n    data: data\n")
        with pytest.raises(PublishError) as refused:
            describe(folder)
        assert refused.value.code == "format_not_allowed"
        assert "model.export('folder')" in refused.value.message
