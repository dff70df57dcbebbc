"""The formats `python` and `pickle`: known by their content here, read and run in a jail alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import PublishError
from modelyard.core.types import DATATYPES, Signature, TensorSpec
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.models.report import SignatureCompletion, TensorCompletion
from modelyard.runtimes.jail.model import JailedModel, open_jail
from modelyard.runtimes.jail.process import JailBounds, What
from modelyard.runtimes.refusals import check_spec, is_bare_pickle, nonempty, not_spoken, only_one

CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
MAX_NAMING_BYTES = 4096
NAMING = "python_class"
HEAD_BYTES = 256
MAX_TENSORS = 256


class PythonRuntime:
    """The port `models.ports.Runtime` for a class in Python. A JSON file of the folder names it,
    `{"python_class": "module:Name"}`, and `modelyard.json` has its signature."""

    format = "python"

    def detect(self, folder: Path) -> str | None:
        """The one JSON file that names a class."""
        return only_one("Python", folder, lambda path: _named_class(path) is not None)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """The stated signature, once the class was loaded in a jail; PublishError."""
        named = _named_class(nonempty(folder / entry))
        if named is None or CLASS.fullmatch(named) is None:
            raise PublishError(
                "manifest_invalid", f"`{NAMING}` must name a class.", field=NAMING, expected="module:Class",
                got=str(named)[:80], example="churn:ChurnModel",
            )  # fmt: skip
        signature = stated_signature(options.get("signature") or SignatureCompletion())
        process, loaded = open_jail(What(folder, entry, self.format), JailBounds.of(options), signature)
        process.kill()
        return Inspection(self.format, entry, signature, _short(loaded.provenance))

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> JailedModel:
        """The model in its jail; PublishError."""
        return JailedModel(What(folder, manifest.entry, self.format), JailBounds.of(options), manifest)


class PickleRuntime:
    """The port `models.ports.Runtime` for scikit-learn estimators in pickle, joblib and cloudpickle files."""

    format = "pickle"

    def detect(self, folder: Path) -> str | None:
        """The one pickle, compressed or not."""
        return only_one("pickle", folder, _is_bare_pickle)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """What the estimator says in its jail; PublishError."""
        nonempty(folder / entry)
        signature, provenance = told_signature(What(folder, entry, self.format), JailBounds.of(options))
        return Inspection(self.format, entry, signature, provenance)

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> JailedModel:
        """The estimator in its jail; PublishError."""
        nonempty(folder / manifest.entry)
        return JailedModel(What(folder, manifest.entry, self.format), JailBounds.of(options), manifest)


def told_signature(what: What, bounds: JailBounds) -> tuple[Signature, dict[str, str]]:
    """What the model says of itself in its jail, its signature one that can be served; PublishError."""
    process, loaded = open_jail(what, bounds, None)
    process.kill()
    signature = loaded.signature
    if signature is None:
        raise PublishError("warm_up_failed", "The model's process gave no signature.", field="model")
    for place, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        names = [_checked(f"{place}[{i}]", spec).name for i, spec in enumerate(specs[:MAX_TENSORS])]
        if not 0 < len(specs) == len(set(names)):
            raise not_spoken(place, f"{len(specs)} tensors", f"Name 1 to {MAX_TENSORS} tensors, each differently.")
    return signature, _short(loaded.provenance)


def _is_bare_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return is_bare_pickle(file.read(HEAD_BYTES))


def _named_class(path: Path) -> str | None:
    if path.stat().st_size > MAX_NAMING_BYTES:
        return None
    content = path.read_bytes()
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    named = found.get(NAMING) if isinstance(found, dict) and len(found) == 1 else None
    return named if isinstance(named, str) else None


def stated_signature(stated: SignatureCompletion) -> Signature:
    """The owner's, whole; PublishError("manifest_invalid") if something of it is not stated."""
    if not stated.inputs or not stated.outputs:
        raise _unstated("signature.outputs" if stated.inputs else "signature.inputs")
    inputs = tuple(_spec(f"signature.inputs[{i}]", each) for i, each in enumerate(stated.inputs))
    outputs = tuple(_spec(f"signature.outputs[{i}]", each) for i, each in enumerate(stated.outputs))
    return Signature(inputs, outputs)


def _spec(place: str, each: TensorCompletion) -> TensorSpec:
    if each.datatype is None or each.shape is None:
        raise _unstated(place)
    return _checked(
        place, TensorSpec(each.name, each.datatype, tuple(each.shape), each.columns or (), each.labels or ())
    )


def _checked(place: str, spec: TensorSpec) -> TensorSpec:
    if spec.datatype not in DATATYPES:
        raise PublishError(
            "manifest_invalid", f"`{place}.datatype` is none that there is.", field=f"{place}.datatype",
            expected=list(DATATYPES), got=spec.datatype[:40],
        )  # fmt: skip
    return check_spec(place, spec)


def _unstated(place: str) -> PublishError:
    tensor = {"name": "x", "datatype": "FP64", "shape": [-1, 4]}
    return PublishError(
        "manifest_invalid",
        f"A class says neither what it takes nor what it gives: state `{place}` with datatype and shape in "
        "`modelyard.json`.",
        field=place,
        example={"signature": {"inputs": [tensor], "outputs": [{**tensor, "name": "y"}]}},
    )


def _short(provenance: Mapping[str, str]) -> dict[str, str]:
    """What a jailed process says of itself, bounded and printable."""
    plain = {
        str(name)[:60]: "".join(c for c in str(text)[:200] if c.isprintable()) for name, text in provenance.items()
    }
    return dict(list(plain.items())[:10])
