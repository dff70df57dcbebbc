"""What the publish check is asked, and what it says; both travel as JSON between two processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.settings import ModelsSettings
from modelyard.core.types import LoadProfile, Signature
from modelyard.models.signing.trust import Signed


class TensorCompletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner adds to one tensor of the signature. None: as the model says."""

    name: str
    datatype: str | None = None
    shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None


class SignatureCompletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner adds to the signature; tensors that are not named stay as the model says."""

    inputs: tuple[TensorCompletion, ...] = ()
    outputs: tuple[TensorCompletion, ...] = ()


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`modelyard.json` in a model's folder. `labels` names the classes of the output that has one value per class,
    `columns` the features of a single input; `redaction` the columns whose values stay out of the log, alone or
    each with its rule: `drop`, `hash` or `mask`."""

    metrics: Mapping[str, Any] = {}
    example: Mapping[str, Any] | None = None
    signature: SignatureCompletion = SignatureCompletion()
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    redaction: tuple[str, ...] | Mapping[str, str] = ()
    provenance: Mapping[str, str] = {}
    limits: Mapping[str, Any] = {}


class CheckOptions(msgspec.Struct, frozen=True):
    """What the check needs to know. `memory_bytes` and `timeout_s` bound its process; `max_loop_run_us` is
    `batching.max_loop_run_us`; `unsafe_formats` are those that the settings allow, `signed` says by whom, `jail` has
    its bounds (`jail_bounds`)."""

    trusted_types: tuple[str, ...] = ()
    threads: int = 1
    timeout_s: float = 120.0
    memory_bytes: int = 8 * 1024**3
    max_version_bytes: int = 8 * 1024**3
    max_loop_run_us: float = 300.0
    overrides: Overrides = Overrides()
    unsafe_formats: tuple[str, ...] = ()
    signed: Signed = Signed()
    jail: Mapping[str, Any] = {}

    def for_runtime(self) -> dict[str, Any]:
        """The options that a runtime takes."""
        return {
            "threads": self.threads,
            "trusted_types": self.trusted_types,
            "max_version_bytes": self.max_version_bytes,
            "signature": self.overrides.signature,
            "example": self.overrides.example,
            "jail": self.jail,
        }


def jail_bounds(models: ModelsSettings) -> dict[str, Any]:
    """What a jailed model may use, by the names of `runtimes.jail.process.JailBounds`."""
    return {
        "memory_bytes": models.jail_memory_bytes,
        "tensor_bytes": models.jail_tensor_bytes,
        "run_s": models.max_run_s,
        "load_s": models.publish_timeout_s,
        "deaths": models.unhealthy_deaths,
        "within_s": models.unhealthy_within_s,
    }


class CheckReport(msgspec.Struct, frozen=True):
    """What the check found: the files are of this format, load, answer, and answered the example if one came.
    `example` is the folder's own, where its owner gave none."""

    format: str
    entry: str
    signature: Signature
    provenance: Mapping[str, str]
    profile: LoadProfile
    suffix: str = ""
    example: Mapping[str, Any] | None = None


Check = Callable[[Path, CheckOptions], CheckReport]
"""Checks the files of a folder away from the caller's process; PublishError."""
