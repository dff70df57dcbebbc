"""LightGBM models in its text format.

The text is data, yet its trees are indices that native code follows without a check. So the publish check follows
them first: `lightgbm_file.py`. Source of the format: LightGBM, `src/boosting/gbdt_model_text.cpp`, `src/io/tree.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import ModelyardError
from modelyard.core.types import Array
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Inspection
from modelyard.runtimes.refusals import extra_missing, nonempty, only_one, reason, unreadable
from modelyard.runtimes.trees.boosted import BoostedModel

KIND = "LightGBM"
MAGIC = b"tree\nversion="
HEAD_BYTES = 64


class LightgbmRuntime:
    """The port `models.ports.Runtime` for LightGBM."""

    format = "lightgbm"

    def detect(self, folder: Path) -> str | None:
        """The one file that begins like LightGBM's text, cut off or not."""
        return only_one(KIND, folder, _begins_like_lightgbm)

    def inspect(self, folder: Path, entry: str, options: Mapping[str, Any]) -> Inspection:
        """Signature and provenance, once the text is complete and its trees are trees; PublishError."""
        from modelyard.runtimes.trees.lightgbm_file import check_complete, inspect_lightgbm

        path = nonempty(folder / entry)
        check_complete(path)
        booster = read_booster(path)
        try:
            return inspect_lightgbm(booster, entry)
        except ModelyardError:
            raise
        except Exception as error:
            raise unreadable(KIND, reason(error)) from None

    def load(self, folder: Path, manifest: Manifest, options: Mapping[str, Any]) -> BoostedModel:
        """The model with `options["threads"]` threads; PublishError."""
        booster = read_booster(nonempty(folder / manifest.entry))
        threads = int(options.get("threads", 1))

        def predict(rows: Array) -> Array:
            scores: Array = booster.predict(rows, num_threads=threads, validate_features=False)
            return scores

        return BoostedModel(manifest.signature, predict)


class _Silent:
    """LightGBM writes to standard output by itself; what matters comes as an exception."""

    def info(self, message: str) -> None:
        """Drops it."""

    def warning(self, message: str) -> None:
        """Drops it."""


def read_booster(path: Path) -> Any:
    """The model as the library holds it; PublishError."""
    try:
        import lightgbm
    except ImportError:
        raise extra_missing(KIND, "lightgbm") from None
    lightgbm.register_logger(_Silent())
    try:
        return lightgbm.Booster(model_str=path.read_text(encoding="utf-8"), params={"verbosity": -1})
    except MemoryError:
        raise
    except Exception as error:
        raise unreadable(KIND, reason(error)) from None


def _begins_like_lightgbm(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES).replace(b"\r\n", b"\n")
    return head.startswith(MAGIC) or (len(head) >= len(b"tree") and MAGIC.startswith(head))
