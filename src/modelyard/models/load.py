"""From the files of a version to something that may be served: verify, load, warm up, check (P5, P3)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from modelyard.codec.oip import OipCodec
from modelyard.core.clock import Clock
from modelyard.core.errors import ModelyardError, PublishError
from modelyard.core.redaction import policy_text
from modelyard.core.settings import Settings
from modelyard.core.types import (
    Array,
    CodecBounds,
    LoadedModel,
    LoadProfile,
    RawRequest,
    Servable,
    Signature,
    Tensors,
)
from modelyard.models.loads.verified import untouched, verify
from modelyard.models.manifest import Manifest
from modelyard.models.ports import JAILED_FORMATS, UNSAFE_FORMATS, UNTOLD, Runtime, Steps, Version, is_shared
from modelyard.models.report import jail_bounds
from modelyard.models.rows import attempts, is_batchable, row_count, spread_rows
from modelyard.models.signing.trust import Signed, Trust, demand_trusted
from modelyard.models.stage import RESERVED

SEED = 20_240_229
ROWS = 32
FEW_ROWS = 4
LARGE_RUN_US = 32_000.0
"""A model of more than a millisecond a row is checked with fewer rows, so that a run takes about this long: 32 rows of
an image model take seconds, and a quarter of a gigabyte that its library keeps."""
BESIDE_BYTES = 64 * 1024 * 1024
"""From this size on hashing takes long enough to be worth a thread beside the parser."""
TIMED_RUNS = 9
TIMED_BUDGET_S = 0.5
RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""How far a float of a batch may be from the same row alone: 1e-6 + 1e-5·|x|."""


def load_servable(
    version: Version,
    folder: Path,
    runtime: Runtime,
    settings: Settings,
    clock: Clock,
    threads: int = 1,
    measuring: AbstractContextManager[Any] | None = None,
    steps: Steps = UNTOLD,
) -> Servable:
    """The version, verified against its manifest, loaded, warmed and checked; UnavailableError("model_not_ready") if
    a file is not the published one, PublishError if it cannot be loaded, or if its signature does not hold or is not
    one that the settings ask for. `measuring` is held while runs are timed: a model that warms up slowly keeps no other
    from its own warm-up. `steps` hears of each."""
    manifest = version.manifest
    options = {
        "threads": threads,
        "trusted_types": settings.models.trusted_types,
        "max_version_bytes": settings.models.max_version_bytes,
        "jail": jail_bounds(settings.models),
    }
    loaded = _parsed(version, folder, runtime, settings, options, steps)
    try:
        with steps.step("warm_up"):
            example = decode_example(manifest.signature, manifest.example)
            profile = check_load(loaded, example, loop_bound_us(manifest, settings), clock, measuring)
    except BaseException:
        loaded.close()
        raise
    trim()
    return Servable(version.model, version.version, version.digest, loaded, profile, policy_text(manifest.redaction))


def _parsed(
    version: Version, folder: Path, runtime: Runtime, settings: Settings, options: dict[str, Any], steps: Steps
) -> LoadedModel:
    """The library's own load of verified files. A large version whose files nobody touched since they were put here is
    hashed meanwhile, in a thread beside: it is given out only if the hash is the published one."""
    manifest = version.manifest
    size = sum(entry.size_bytes for entry in manifest.files)

    def check() -> None:
        with steps.step("verify", size):
            verify(version, folder)

    loaded: LoadedModel | None = None
    try:
        with untouched(version, folder), ThreadPoolExecutor(1, "verify") as beside:
            checked = beside.submit(check)
            if not _is_verified_beside(manifest, folder, size):
                checked.result()
            _permit(manifest, Trust.of(settings.models).examine_version(folder, manifest), settings)
            try:
                with steps.step("parse", size):
                    loaded = runtime.load(folder, manifest, options)
            except Exception:
                checked.result()  # what is not the published file cannot be parsed either, and that is the reason
                raise
            checked.result()
    except BaseException:
        if loaded is not None:
            loaded.close()
        raise
    return loaded


def _is_verified_beside(manifest: Manifest, folder: Path, size: int) -> bool:
    """Whether a parser may see the files before their hash is known: they were hashed when they came, the manifest was
    written last, and no file was changed after it. A format whose files are programs waits in any case."""
    if size < BESIDE_BYTES or manifest.format in JAILED_FORMATS:
        return False
    try:
        written_ns = (folder / RESERVED).lstat().st_ctime_ns
        return all((folder / entry.path).lstat().st_ctime_ns <= written_ns for entry in manifest.files)
    except OSError:
        return False


def _permit(manifest: Manifest, signed: Signed, settings: Settings) -> None:
    """PublishError unless the settings of today let this version be loaded."""
    if manifest.format not in UNSAFE_FORMATS:
        return
    if manifest.format not in settings.models.unsafe_formats:
        raise PublishError(
            "format_not_allowed",
            f"models.unsafe_formats does not allow `{manifest.format}`, whose files run code.",
            field="models.unsafe_formats",
            got=manifest.format,
        )
    demand_trusted(signed, f"its format `{manifest.format}` runs code")


def loop_bound_us(manifest: Manifest, settings: Settings) -> float:
    """How long a run on the event loop may take. Never one in another process: if that hangs it would hold the loop."""
    remote = manifest.format in JAILED_FORMATS or is_shared(manifest, settings)
    return 0.0 if remote else settings.batching.max_loop_run_us


def trim() -> None:
    """Gives the free pages of the C library back to the kernel: loading leaves as many as the file is large."""
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if found is not None:
        found(0)


def decode_example(signature: Signature, example: Mapping[str, Any] | None) -> Tensors | None:
    """The owner's example as tensors; PublishError("example_failed") if it does not fit the signature."""
    if example is None:
        return None
    try:
        raw = RawRequest(msgspec.json.encode(example))
        return OipCodec().decode(raw, signature, CodecBounds()).inputs
    except ModelyardError as error:
        raise PublishError(
            "example_failed",
            f"The example does not fit the model: {error.message}",
            field="example",
            reason=error.code,
            problem=dict(error.detail),
        ) from None


def check_load(
    loaded: LoadedModel,
    example: Tensors | None,
    max_loop_run_us: float,
    clock: Clock,
    measuring: AbstractContextManager[Any] | None = None,
) -> LoadProfile:
    """Warms the model up, measures it, and leaves it compact (hot path contract, "A batch never mixes callers").
    `measuring` is entered for each measurement.

    PublishError("example_failed") if the example fails; ("warm_up_failed") if there is none and no made-up row runs.
    """
    if example is not None:
        _try_example(loaded, example)
    rows = _working_rows(loaded, example, FEW_ROWS)

    def timed(inputs: Tensors) -> tuple[float, float]:
        with measuring or nullcontext():
            return _time_us(loaded, inputs, clock)

    if not is_batchable(loaded.signature):
        run_us, least_us = timed(rows)
        loaded.compact(rows)
        return LoadProfile(False, least_us <= max_loop_run_us, run_us, run_us)
    one_us, _ = timed(_slice(rows, 0, 1))
    count = max(FEW_ROWS, min(ROWS, int(LARGE_RUN_US / max(one_us, 1.0))))
    if count > FEW_ROWS:
        rows = _working_rows(loaded, example, count)
    batched = _rows_are_independent(loaded, rows)
    many = {name: np.resize(array, (count, *array.shape[1:])) for name, array in rows.items()}
    many_us, least_us = (us * ROWS / count for us in timed(many))
    loaded.compact(_slice(rows, 0, 1))
    return LoadProfile(batched, least_us <= max_loop_run_us, one_us, many_us)


def _try_example(loaded: LoadedModel, example: Tensors) -> None:
    try:
        outputs = loaded.run(example, ())
    except ModelyardError as error:
        raise PublishError(
            "example_failed", f"The model fails on its example: {error.message}", field="example"
        ) from None
    _check_outputs(loaded.signature, outputs)


def _working_rows(loaded: LoadedModel, example: Tensors | None, most: int) -> dict[str, Array]:
    """The example's rows and at most so many seeded ones; where the model takes no made-up row, the example's alone."""
    signature = loaded.signature
    count = row_count(signature, most)
    batchable = is_batchable(signature)
    if example is not None:
        if not batchable:
            return dict(example)
        near = spread_rows(signature, example, count - count // 2, SEED)
        free = _seeded_like(signature, example, count // 2)
        rows = {name: np.concatenate([example[name], near[name], free[name]]) for name in near}
        return rows if _runs(loaded, rows) is None else dict(example)
    failure: ModelyardError | None = None
    for rows in attempts(signature, count if batchable else 1, SEED):
        failure = _runs(loaded, rows)
        if failure is None:
            return rows
    raise PublishError(
        "warm_up_failed",
        f"The model does not run on rows made from its signature; give it an example. {failure and failure.message}",
        field="example",
        expected="an example request that the model answers",
    )


def _seeded_like(signature: Signature, example: Tensors, count: int) -> dict[str, Array]:
    """Seeded rows with the example's non-batch dimensions."""
    inputs = tuple(
        msgspec.structs.replace(spec, shape=(-1, *example[spec.name].shape[1:])) for spec in signature.inputs
    )
    return next(attempts(Signature(inputs, signature.outputs), count, SEED))


def _runs(loaded: LoadedModel, rows: Tensors) -> ModelyardError | None:
    """None if the model takes these rows; a wrong output is refused at once."""
    try:
        outputs = loaded.run(rows, ())
    except ModelyardError as error:
        return error
    _check_outputs(loaded.signature, outputs)
    return None


def _check_outputs(signature: Signature, outputs: Tensors) -> None:
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if array is None or len(array.shape) != len(spec.shape) or not _fits(array.shape, spec.shape):
            raise PublishError(
                "signature_conflict",
                f"The output `{spec.name}` is not of the shape that the model states.",
                field=spec.name,
                expected=list(spec.shape),
                got=None if array is None else list(array.shape),
            )


def _fits(shape: tuple[int, ...], stated: tuple[int, ...]) -> bool:
    return all(want in (-1, have) for have, want in zip(shape, stated, strict=True))


def _rows_are_independent(loaded: LoadedModel, rows: Mapping[str, Array]) -> bool:
    """Whether each row's outputs in the batch equal its outputs alone."""
    count = len(next(iter(rows.values())))
    try:
        together = loaded.run(rows, ())
        if count < 2 or any(len(array) != count for array in together.values()):
            return False
        return all(
            _same(array[i : i + 1], alone[name])
            for i in range(count)
            for alone in (loaded.run(_slice(rows, i, i + 1), ()),)
            for name, array in together.items()
        )
    except ModelyardError:
        return False


def _slice(rows: Mapping[str, Array], start: int, end: int) -> dict[str, Array]:
    return {name: array[start:end] for name, array in rows.items()}


def _same(batch: Array, alone: Array) -> bool:
    """Exactly for integers, booleans and bytes; within the tolerance for floats, NaN equal to NaN."""
    if batch.shape != alone.shape:
        return False
    if batch.dtype.kind != "f":
        return bool(np.array_equal(batch, alone))
    return bool(np.allclose(batch, alone, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True))


def _time_us(loaded: LoadedModel, rows: Tensors, clock: Clock) -> tuple[float, float]:
    """Median and least of nine runs after one to warm up, in microseconds; fewer when they are slow. A busy machine
    only adds to a time, so the least says best what the model can do."""
    loaded.run(rows, ())
    times: list[float] = []
    begun = clock.monotonic()
    while len(times) < TIMED_RUNS and (not times or clock.monotonic() - begun < TIMED_BUDGET_S):
        start = clock.monotonic()
        loaded.run(rows, ())
        times.append(clock.monotonic() - start)
    return median(times) * 1e6, min(times) * 1e6


def runtime_for(manifest: Manifest, runtimes: Mapping[str, Runtime]) -> Runtime:
    """The runtime of a manifest's format; PublishError("runtime_missing")."""
    if manifest.format not in runtimes:
        raise PublishError(
            "runtime_missing",
            f"This installation has no runtime for the format `{manifest.format}`.",
            field="format",
            expected=sorted(runtimes),
            got=manifest.format,
        )
    return runtimes[manifest.format]
