"""Hugging Face style folders with ONNX inside: `config.json` with the names of the classes, `onnx/model.onnx`.

Source of the structure: Hugging Face Optimum, "Export a model to ONNX", and Transformers' `PretrainedConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from modelyard.core.errors import PublishError
from modelyard.runtimes.folders.description import Description

CONFIG = "config.json"
MAX_BYTES = 16 * 1024 * 1024
USUAL = ("onnx/model.onnx", "model.onnx")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "model.safetensors.index.json")
MAX_TEXT_CHARS = 200


class _Config(msgspec.Struct, frozen=True):
    """What is read of `config.json`; the rest is not looked at."""

    model_type: str = ""
    architectures: tuple[str, ...] | None = None
    id2label: Mapping[str, str] | None = None
    transformers_version: str | None = None

    @property
    def is_theirs(self) -> bool:
        return bool(self.model_type or self.architectures or self.id2label)


def read_huggingface(folder: Path) -> Description | None:
    """What the folder's `config.json` says, or None where it is not one of Transformers, or the folder holds no ONNX.

    PublishError: manifest_invalid (labels that do not count from 0), format_not_allowed (weights that only Python can
    make a model of), format_unknown (several ONNX files and none with the usual name).
    """
    path = folder / CONFIG
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not config.is_theirs:
        return None
    entry = _entry(folder)
    if entry is None:
        return None
    return Description("onnx", entry, labels=_labels(config.id2label or {}), provenance=_provenance(config))


def _entry(folder: Path) -> str | None:
    for name in USUAL:
        if (folder / name).is_file():
            return name
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx") if path.is_file())
    if len(found) > 1:
        raise PublishError(
            "format_unknown",
            f"The folder holds {len(found)} ONNX models and none is called `{USUAL[0]}`; publish the one to serve.",
            field="model",
            expected=USUAL[0],
            got=found[:10],
        )
    if not found and any((folder / name).is_file() for name in WEIGHTS):
        raise PublishError(
            "format_not_allowed",
            "The folder holds a model of Transformers without ONNX, which only Python can load. Export it first: "
            "`optimum-cli export onnx --model FOLDER OUT`.",
            field="model",
            expected=USUAL[0],
            got=[name for name in WEIGHTS if (folder / name).is_file()],
        )
    return found[0] if found else None


def _labels(named: Mapping[str, str]) -> tuple[str, ...]:
    """The names in the order of their numbers."""
    try:
        counted = {int(number): name for number, name in named.items()}
    except ValueError:
        counted = {}
    if len(counted) != len(named) or set(counted) != set(range(len(named))):
        raise PublishError(
            "manifest_invalid",
            f"`id2label` of `{CONFIG}` does not count its classes from 0.",
            field=f"{CONFIG}.id2label",
            expected=[str(number) for number in range(min(len(named), 10))],
            got=[name[:20] for name in list(named)[:10]],
            example={"0": "NEGATIVE", "1": "POSITIVE"},
        )
    return tuple(counted[number] for number in range(len(counted)))


def _provenance(config: _Config) -> dict[str, str]:
    said = {
        "architecture": ", ".join(config.architectures or ()),
        "model_type": config.model_type,
        "transformers": config.transformers_version or "",
    }
    return {name: text[:MAX_TEXT_CHARS] for name, text in said.items() if text}
