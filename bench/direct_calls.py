"""What a library answers in this process to the rows that are served: the same file, its own loader, its own calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[np.ndarray], Any]
"""Rows to all that is served of them."""


def onnx(path: Path) -> Call:
    """A session with one thread."""
    import onnxruntime

    wanted = onnxruntime.SessionOptions()
    wanted.intra_op_num_threads = wanted.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), wanted, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    return lambda rows: session.run(None, {given: rows})


def skops(path: Path) -> Call:
    """Labels and probabilities, each by its method."""
    from skops.io import get_untrusted_types, load

    return _both(load(path, trusted=get_untrusted_types(file=path)))


def joblib(path: Path) -> Call:
    """The same of a pickle, which is the bench's own."""
    from joblib import load

    return _both(load(path))


def _both(estimator: Any) -> Call:
    return lambda rows: (estimator.predict(rows), estimator.predict_proba(rows))


def lightgbm(path: Path) -> Call:
    """The booster's scores with one thread."""
    from lightgbm import Booster

    booster = Booster(model_file=path)
    return lambda rows: booster.predict(rows, num_threads=1)


def xgboost(path: Path) -> Call:
    """The booster's scores with one thread, in place: its quickest call."""
    from xgboost import Booster

    booster = Booster(params={"nthread": 1}, model_file=path)
    return booster.inplace_predict


def torchscript(path: Path) -> Call:
    """The module in inference mode."""
    import torch

    return _module(torch.jit.load(str(path)).eval())


def exported(path: Path) -> Call:
    """The program's module in inference mode."""
    import torch

    return _module(torch.export.load(path).module())


def _module(module: Any) -> Call:
    import torch

    def call(rows: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(rows)).numpy()

    return call


def tensorflow(path: Path) -> Call:
    """The signature that serves."""
    from modelyard.runtimes.tensorflow.runtime import import_tensorflow

    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(path.parent))
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]

    def call(rows: np.ndarray) -> Any:
        loaded  # noqa: B018  # what the signature reads is kept by it alone
        return {output: found.numpy() for output, found in serve(**{name: tf.constant(rows)}).items()}

    return call


def python(path: Path) -> Call:
    """The class that the folder's JSON file names is `linear:Linear`, or another file's `Model`."""
    source = next(path.parent.glob("*.py"))
    spec = importlib.util.spec_from_file_location(f"bench_{source.stem}", source)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{source} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = next(each for each in vars(module).values() if isinstance(each, type) and hasattr(each, "predict"))()
    model.load(path.parent)
    return lambda rows: model.predict({"X": rows})


CALLS: Mapping[str, Callable[[Path], Call]] = {
    "onnx": onnx,
    "sklearn": skops,
    "pickle": joblib,
    "lightgbm": lightgbm,
    "xgboost": xgboost,
    "torchscript": torchscript,
    "torch_export": exported,
    "tensorflow": tensorflow,
    "python": python,
}
"""By format, from the file that is served."""
