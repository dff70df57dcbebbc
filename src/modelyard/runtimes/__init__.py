"""What executes a version; each format's library is imported only when a model needs it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.core.errors import PublishError

if TYPE_CHECKING:  # a jailed process imports this package before it may start threads, as numpy would
    from modelyard.models.ports import Runtime

_PLACES = {
    "onnx": ("modelyard.runtimes.onnx", "OnnxRuntime"),
    "sklearn": ("modelyard.runtimes.sklearn", "SklearnRuntime"),
    "lightgbm": ("modelyard.runtimes.trees.lightgbm", "LightgbmRuntime"),
    "xgboost": ("modelyard.runtimes.trees.xgboost", "XgboostRuntime"),
    "torchscript": ("modelyard.runtimes.torch.script", "TorchscriptRuntime"),
    "torch_export": ("modelyard.runtimes.torch.pt2", "TorchExportRuntime"),
    "tensorflow": ("modelyard.runtimes.tensorflow.runtime", "TensorflowRuntime"),
    "python": ("modelyard.runtimes.jail.formats", "PythonRuntime"),
    "pickle": ("modelyard.runtimes.jail.formats", "PickleRuntime"),
}
_NAMED = {
    ".onnx": "ONNX",
    ".skops": "scikit-learn (skops)",
    ".ubj": "XGBoost",
    ".pt2": "PyTorch (.pt2)",
    ".pb": "TensorFlow (SavedModel)",
}
_PICKLE_HINT = (
    "Pickle and joblib files run code when they are loaded; export the model to ONNX, or save it with skops, by "
    "XGBoost's or LightGBM's own `save_model`, or by `torch.export.save`."
)
_UNSAFE_HINTS = {
    "pickle": f"a pickle. {_PICKLE_HINT}",
    "python": "a class in Python, which runs its own code. Export the model to ONNX.",
}


class _Runtimes(Mapping[str, "Runtime"]):
    """Runtimes by format, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Runtime] = {}

    def __getitem__(self, name: str) -> Runtime:
        if name not in self._made:
            module, attribute = _PLACES[name]
            self._made[name] = getattr(import_module(module), attribute)()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


RUNTIMES: Mapping[str, Runtime] = _Runtimes()
"""Every format that can be served, by the name in the manifest."""


def detect(folder: Path, allowed: Collection[str] = ()) -> tuple[Runtime, str]:
    """The runtime and the entry file of a folder, by content; of formats that run code only those that are `allowed`.

    PublishError: model_empty, format_not_allowed (pickle and its kin), model_unreadable (the name promises a format
    that the bytes are not), format_unknown.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files or all(path.stat().st_size == 0 for path in files):
        raise PublishError("model_empty", "The model is empty: it holds no bytes.", field="model", got="0 bytes")
    for runtime in RUNTIMES.values():
        entry = runtime.detect(folder)
        if entry is not None:
            if runtime.format in _UNSAFE_HINTS and runtime.format not in allowed:
                raise _not_allowed(runtime.format, entry)
            return runtime, entry
    raise _refusal(files)


def _not_allowed(form: str, entry: str) -> PublishError:
    from modelyard.runtimes.refusals import leave

    return PublishError(
        "format_not_allowed",
        f"`{Path(entry).name}` is {_UNSAFE_HINTS[form]} {leave(form)}",
        field="model",
        got=form,
        expected="a format that runs no code when it is loaded",
    )


def _refusal(files: list[Path]) -> PublishError:
    from modelyard.runtimes.refusals import is_pickle
    from modelyard.runtimes.tensorflow.detection import is_keras

    for path in files:
        if is_pickle(path):
            return PublishError(
                "format_not_allowed", f"`{path.name}` is a pickle. {_PICKLE_HINT}", field="model", got="pickle"
            )
        if is_keras(path):
            return PublishError(
                "format_not_allowed",
                f"`{path.name}` is a file of Keras, which may hold code. Export the model, `model.export('folder')`, "
                "and publish the folder.",
                field="model",
                got="keras",
                example="model.export('folder')",
            )
    for path in files:
        if path.suffix in _NAMED:
            return PublishError(
                "model_unreadable",
                f"`{path.name}` is no {_NAMED[path.suffix]} model, whatever its name says.",
                field="model",
                expected=f"a complete {_NAMED[path.suffix]} model",
                got=f"{path.stat().st_size} bytes of something else",
            )
    return PublishError(
        "format_unknown",
        "The files are of no format that is served here.",
        field="model",
        expected=list(RUNTIMES),
        got=[path.name for path in files[:10]],
    )
