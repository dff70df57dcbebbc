"""TensorFlow SavedModels on the CPU.

A session runs what `saved_model.py` has checked. TensorFlow takes seconds and half a gigabyte to import: only when a
model needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import ModelError, ModelyardError
from modelyard.core.types import Array, Signature, Tensors
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import extra_missing, fitting, nonempty, only_one, reason, unreadable
from modelyard.runtimes.tensorflow.detection import USUAL, begins_like_saved_model
from modelyard.runtimes.tensorflow.saved_model import KIND, VARIABLES, Program, read_program

QUIET: Mapping[str, str] = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
"""Read at import: no lines on standard error, where the event log is; no search for graphics cards; sums in an order
that does not depend on the rows beside them."""


CALLERS_THREAD = -1
"""Of RunOptions.inter_op_thread_pool: tensorflow/core/protobuf/config.proto."""


class TensorflowRuntime:
    """The port `models.ports.Runtime` for SavedModels."""

    format = "tensorflow"

    def detect(self, folder: Path) -> str | None:
        """The one file that begins like a SavedModel, cut off or not; among several the one with the usual name."""
        usual = [path for path in folder.rglob(USUAL) if begins_like_saved_model(path)]
        if len(usual) == 1:
            return usual[0].relative_to(folder).as_posix()
        return only_one(KIND, folder, begins_like_saved_model)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Signature and provenance as the file states them, once its operators are allowed; PublishError."""
        program = _read(folder, entry)
        said = {"tensorflow": program.version} if program.version else {}
        import_tensorflow()
        return Inspection(self.format, entry, program.signature, said, ".pb")

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> TensorflowModel:
        """The program with `options["threads"]` threads; PublishError."""
        program = _read(folder, manifest.entry)
        tensorflow = import_tensorflow()
        variables = (folder / manifest.entry).parent / VARIABLES
        try:
            session = _session(tensorflow, program, int(options.get("threads", 1)))
            if program.restore:
                session.run(session.graph.get_operation_by_name(program.restore), {program.filename: str(variables)})
            if program.initialise:
                session.run(session.graph.get_operation_by_name(program.initialise.partition(":")[0]))
            return TensorflowModel(session, program, manifest.signature)
        except (ModelyardError, MemoryError):
            raise
        except Exception as error:
            raise unreadable(KIND, reason(error)) from None


class TensorflowModel:
    """A session; `core.types.LoadedModel`."""

    def __init__(self, session: Any, program: Program, signature: Signature) -> None:
        self.signature = signature
        self._session = session
        self._inputs = tuple((spec.name, spec.shape) for spec in signature.inputs)
        self._names = tuple(spec.name for spec in program.signature.outputs)
        self._text = frozenset(spec.name for spec in program.signature.inputs if spec.datatype == "BYTES")
        self._run: Any = _prepared(session, program)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port."""
        run = self._run
        if run is None:
            raise ModelError("model_failed", "The model is no longer in memory.")
        given = [fitting(name, shape, inputs[name]) for name, shape in self._inputs]
        try:
            found = dict(zip(self._names, map(np.asarray, run(*given)), strict=True))
        except Exception as error:
            raise ModelError("model_failed", f"The model failed on this input: {reason(error)}") from None
        return {name: found[name] for name in outputs or self._names}

    def compact(self, inputs: Tensors) -> None:
        """See the port: TensorFlow's allocator for the CPU keeps nothing."""

    def close(self) -> None:
        """Lets go of the session; a run that holds it ends first."""
        session, self._session, self._run = self._session, None, None
        if session is not None:
            session.close()


def _read(folder: Path, entry: str) -> Program:
    """The program, whose variables are there if it needs some; PublishError."""
    path = nonempty(folder / entry)
    program = read_program(path)
    if program.restore and not (path.parent / f"{VARIABLES}.index").is_file():
        raise unreadable(KIND, f"its variables are missing: publish the folder with `{VARIABLES}.index`.")
    return program


def import_tensorflow() -> Any:
    """TensorFlow, quiet, its symbols for itself; PublishError without the extra."""
    for name, text in QUIET.items():
        os.environ.setdefault(name, text)
    try:
        with _symbols_kept():
            import tensorflow
    except ImportError:
        raise extra_missing("TensorFlow", "tensorflow") from None
    return tensorflow


@contextmanager
def _symbols_kept() -> Iterator[None]:
    """TensorFlow asks for RTLD_GLOBAL, for operators of one's own, which are not allowed here. With it the OpenSSL
    functions in its libraries stand in front of everybody else's: PostgreSQL's client crashes at its next TLS
    connection."""
    change = sys.setdlopenflags
    sys.setdlopenflags = _unchanged
    try:
        yield
    finally:
        sys.setdlopenflags = change


def _unchanged(flags: int, /) -> None:
    """sys.setdlopenflags, for as long as it must not."""


def _prepared(session: Any, program: Program) -> Any:
    """The program as a function of its inputs, in their order. Without the looks at names and types of each call, which
    the decoder has had. A short program runs in the thread that calls: to another and back is two switches."""
    from tensorflow.core.protobuf import config_pb2

    fetched = list(dict.fromkeys(program.outputs))
    options = config_pb2.CallableOptions(feed=program.inputs, fetch=fetched)
    options.run_options.inter_op_thread_pool = CALLERS_THREAD if program.short else 0
    try:
        call = session._make_callable_from_options(options)
    except Exception:  # an output that is an input, as it came: only the general way has that
        return session.make_callable(list(program.outputs), feed_list=list(program.inputs))
    if len(fetched) == len(program.outputs):
        return call
    places = [fetched.index(name) for name in program.outputs]

    def run(*given: Array) -> list[Any]:
        found = call(*given)
        return [found[place] for place in places]

    return run


def _session(tensorflow: Any, program: Program, threads: int) -> Any:
    v1 = tensorflow.compat.v1
    graph = tensorflow.Graph()
    with graph.as_default():
        v1.import_graph_def(v1.GraphDef.FromString(program.graph), name="")
    config = v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1, device_count={"GPU": 0}
    )
    return v1.Session(graph=graph, config=config)
