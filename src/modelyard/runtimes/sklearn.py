"""scikit-learn models in skops files: a zip of JSON and NPY, loaded without running what it names.

skops builds an object only from types on its own list of safe ones and on `models.trusted_types`, which comes from
the server's configuration, never from the file.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import ModelError, ModelyardError, PublishError
from modelyard.core.types import Array, Signature, Tensors, TensorSpec
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import (
    DAMAGED_ZIP,
    check_spec,
    extra_missing,
    nonempty,
    not_spoken,
    only_one,
    reason,
    unreadable,
)
from modelyard.runtimes.sklearn_once import SharedEstimator
from modelyard.runtimes.sklearn_sound import is_sound
from modelyard.runtimes.torch.archive import first_name

KIND = "scikit-learn (skops)"
INPUT = "X"
SCHEMA = "schema.json"
PROBABILITIES = "probabilities"
METHODS: Mapping[str, str] = {"label": "predict", "value": "predict", PROBABILITIES: "predict_proba"}
"""By output, the estimator's method that gives it."""
MAX_ENTRIES = 100_000


class SklearnRuntime:
    """The port `models.ports.Runtime` for scikit-learn through skops."""

    format = "sklearn"

    def detect(self, folder: Path) -> str | None:
        """The one zip file that holds a skops schema, or begins like one that was cut off."""
        return only_one("skops", folder, is_skops)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Signature, labels and provenance from the estimator's fitted attributes; PublishError."""
        path = folder / entry
        estimator = read_estimator(path, options)
        try:
            with zipfile.ZipFile(path) as archive:
                signature = estimator_signature(estimator)
                provenance = _provenance(estimator, archive)
        except ModelyardError:
            raise
        except Exception as error:
            raise unreadable(KIND, reason(error)) from None
        return Inspection("sklearn", entry, signature, provenance)

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> SklearnModel:
        """The estimator, one job at a time; PublishError."""
        return SklearnModel(read_estimator(folder / manifest.entry, options), manifest.signature)


class SklearnModel:
    """A fitted estimator; `core.types.LoadedModel`. Outputs: `label` and `probabilities`, or `value`."""

    def __init__(self, estimator: Any, signature: Signature) -> None:
        self.signature = signature
        self._estimator = estimator
        scored = any(spec.name == PROBABILITIES for spec in signature.outputs)
        self._shared: SharedEstimator | None = SharedEstimator(estimator, scored)
        self._names = tuple(spec.name for spec in signature.outputs)
        self._input = signature.inputs[0].name
        self._text = frozenset(spec.name for spec in signature.outputs if spec.datatype == "BYTES")

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """See the port."""
        shared = self._shared
        if shared is None:
            raise ModelError("model_failed", "The model is no longer in memory.")
        try:
            found = shared.answers(METHODS, outputs or self._names, inputs[self._input])
            return {name: self._as_stated(name, result) for name, result in found.items()}
        except Exception as error:
            raise ModelError("model_failed", f"The model failed on this input: {reason(error)}") from None

    def compact(self, inputs: Tensors) -> None:
        """See the port: an estimator keeps nothing."""

    def close(self) -> None:
        """Lets go of the estimator; a run that holds it ends first."""
        shared, self._shared, self._estimator = self._shared, None, None
        if shared is not None:
            shared.close()

    def _as_stated(self, name: str, result: Any) -> Array:
        if name == PROBABILITIES:
            return np.asarray(result, dtype=np.float64)
        array = np.asarray(result)
        return _as_bytes(array) if name in self._text else array


def _as_bytes(array: Array) -> Array:
    out = np.empty(array.size, dtype=np.object_)
    out[:] = [str(item).encode() for item in array.ravel()]
    return out.reshape(array.shape)


def is_skops(path: Path) -> bool:
    """Whether the file is a zip with a skops schema, or begins like one that was cut off."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4)
    if head != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return SCHEMA in archive.namelist()
    except DAMAGED_ZIP:
        # A zip whose directory is cut off: PyTorch's have a folder around everything, skops none.
        return "/" not in (first_name(path) or "")


def read_estimator(path: Path, options: Mapping[str, Any]) -> Any:
    """The estimator, of types that are trusted alone; PublishError."""
    try:
        import sklearn  # noqa: F401
        from skops.io import get_untrusted_types, load
    except ImportError:
        raise extra_missing("scikit-learn", "sklearn") from None
    nonempty(path)
    trusted = list(options.get("trusted_types", ()))
    try:
        _check_size(path, int(options.get("max_version_bytes", 8 * 1024**3)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_types(get_untrusted_types(file=path), trusted)
            estimator = load(path, trusted=trusted)
    except ModelyardError:
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None
    for part in held(estimator):
        _check_part(part)
    return settle(estimator)


def _check_size(path: Path, max_bytes: int) -> None:
    """A zip may state more than the disk holds; refuse before anything is unpacked."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    stated = sum(entry.file_size for entry in entries)
    if stated > max_bytes or len(entries) > MAX_ENTRIES:
        raise PublishError(
            "archive_unsafe",
            f"The skops file unpacks to {stated} bytes in {len(entries)} entries; {max_bytes} bytes are the most.",
            field="models.max_version_bytes",
            expected=max_bytes,
            got=stated,
        )


def _check_types(found: Sequence[str], trusted: Sequence[str]) -> None:
    untrusted = sorted(set(found) - set(trusted))
    if untrusted:
        raise PublishError(
            "types_untrusted",
            f"The model holds types that are not trusted here: {', '.join(untrusted)[:300]}. Export it to ONNX, or let "
            "the server's operator trust them.",
            field="models.trusted_types",
            expected="safe types, or those that the server's configuration trusts",
            got=untrusted[:50],
            example="MODELYARD_MODELS__TRUSTED_TYPES='[\"sklearn.tree._tree.Tree\"]'",
        )


def settle(estimator: Any) -> Any:
    """The estimator, it and all that it holds with one job, and leaving its rows as they are: threads are sized by the
    server, and `n_jobs` would start more. With `copy=False` a step changes the rows that it is given: they are the
    caller's, and are needed for the next output. What was fitted inside of another is no parameter of it."""
    parameters = getattr(estimator, "get_params", dict)(deep=True) if hasattr(estimator, "get_params") else {}
    settled: dict[str, Any] = {name: 1 for name in parameters if name.split("__")[-1] == "n_jobs"}
    settled |= {name: True for name, value in parameters.items() if name.split("__")[-1] == "copy" and value is False}
    if settled:
        estimator.set_params(**settled)
    for part in held(estimator):
        own = getattr(part, "__dict__", {})
        if own.get("n_jobs") is not None:
            own["n_jobs"] = 1
        if own.get("copy") is False:
            own["copy"] = True
    # Rows come as plain matrices in the order of the columns; the codec has matched the names already.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    return estimator


def _check_part(part: Any) -> None:
    """PublishError("format_not_allowed") for one that opens files that its rows name, or reads beyond its arrays."""
    from sklearn.feature_extraction.text import _VectorizerMixin

    own = getattr(part, "__dict__", {})
    # Of "filename" it reads what a row names, of "file" what the row is: numbers of open files, or a path that a
    # classifier before it answered.
    if isinstance(part, _VectorizerMixin) and not (type(own.get("input")) is str and own["input"] == "content"):
        raise not_spoken("model", f"a {type(part).__name__} that reads files", 'Fit it with `input="content"`.')
    if not is_sound(part):
        what = f"a {type(part).__name__} whose arrays do not fit each other, or that was fitted on a sparse matrix"
        raise not_spoken("model", what, "Fit it on a dense matrix.")


def held(root: Any) -> Iterator[Any]:
    """An object, and all that it holds in attributes, lists, mappings and arrays of objects."""
    waiting, seen = [root], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, str | bytes | int | float | type):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each
        elif isinstance(each, np.ndarray):
            waiting += each.ravel().tolist() if each.dtype.hasobject else ()
        waiting += getattr(each, "__dict__", {}).values()


def estimator_signature(estimator: Any) -> Signature:
    """What a fitted estimator takes and gives; PublishError("format_not_allowed") where that cannot be served."""
    if not hasattr(estimator, "predict"):
        raise not_spoken("model", f"a {type(estimator).__name__}", "Publish an estimator that predicts.")
    features = getattr(estimator, "n_features_in_", None)
    if not isinstance(features, int | np.integer):
        raise not_spoken("model", f"a {type(estimator).__name__} that was not fitted on a matrix", "Fit it first.")
    columns = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    given = check_spec("inputs[0]", TensorSpec(INPUT, "FP64", (-1, int(features)), columns=columns))
    return Signature((given,), tuple(_outputs(estimator)))


def _outputs(estimator: Any) -> list[TensorSpec]:
    from sklearn.base import is_classifier

    if not is_classifier(estimator):
        return [_predicted(estimator, "value")]
    label = _predicted(estimator, "label")
    classes = getattr(estimator, "classes_", None)
    if len(label.shape) > 1 or isinstance(classes, list) or not hasattr(estimator, "predict_proba"):
        return [label]
    names = tuple(str(name) for name in np.asarray(classes).tolist())
    return [label, check_spec("outputs[1]", TensorSpec(PROBABILITIES, "FP64", (-1, len(names)), labels=names))]


def _predicted(estimator: Any, name: str) -> TensorSpec:
    """Type and shape of what it predicts, from one row of zeros: no attribute states them for all estimators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = np.asarray(estimator.predict(np.zeros((1, int(estimator.n_features_in_)))))
    datatypes = {"b": "BOOL", "U": "BYTES", "O": "BYTES"}
    kind = result.dtype.kind
    if kind in "iuf":
        prefix = {"i": "INT", "u": "UINT", "f": "FP"}[kind]
        datatypes[kind] = f"{prefix}{result.dtype.itemsize * 8}"
    if kind not in datatypes:
        raise not_spoken(name, f"of type {result.dtype}", "Predict numbers or text.")
    return TensorSpec(name, datatypes[kind], (-1, *result.shape[1:]))


def _provenance(estimator: Any, archive: zipfile.ZipFile) -> dict[str, str]:
    import json

    import sklearn

    schema = json.loads(archive.read(SCHEMA))
    said = {
        "estimator": type(estimator).__name__,
        "skops": str(schema.get("_skops_version", "")),
        "protocol": str(schema.get("protocol", "")),
        "scikit_learn": sklearn.__version__,
    }
    return {name: text[:200] for name, text in said.items() if text}
