"""The publish check, in a process of its own: `python -m modelyard.runtimes.check FOLDER`, options on stdin.

A model file is a program in disguise, and its parsers are C++. Here they meet it first: with bounded memory, time
and file size, without credentials, in their own process group (promise P8). The last line of the conversation is one
JSON object: `{"report": …}` or `{"error": {"code", "message", "detail"}}`.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelyardError, PublishError
from modelyard.models.complete import complete
from modelyard.models.manifest import Manifest
from modelyard.models.ports import JAILED_FORMATS, UNSAFE_FORMATS
from modelyard.models.report import CheckOptions, CheckReport
from modelyard.models.signing.trust import demand_trusted
from modelyard.runtimes.remote.process import Bounds

MAX_WRITTEN_BYTES = 1024 * 1024
MAX_FILES = 256


def check_files(folder: Path, options: CheckOptions) -> CheckReport:
    """Find what to serve, inspect, load, warm up, run the example, check the batches; PublishError."""
    from modelyard.models.load import check_load, decode_example
    from modelyard.runtimes import RUNTIMES
    from modelyard.runtimes.folders import describe

    described = describe(folder, options.unsafe_formats)
    jailed = described.format in JAILED_FORMATS
    if described.format in UNSAFE_FORMATS:
        demand_trusted(options.signed, f"its format `{described.format}` runs code")
    if jailed:
        _allow_written(MAX_WRITTEN_BYTES + _shared_bytes(options))
    runtime, entry = RUNTIMES[described.format], described.entry
    found = runtime.inspect(folder, entry, described.options(options.for_runtime()))
    signature = complete(found.signature, described.merge(options.overrides, found.signature))
    owned = options.overrides.example
    told = described.request(signature) if owned is None else None
    loaded = runtime.load(folder, Manifest(found.format, entry, (), signature), options.for_runtime())
    try:
        example = decode_example(signature, told if owned is None else owned)
        profile = check_load(loaded, example, 0.0 if jailed else options.max_loop_run_us, SystemClock())
    finally:
        loaded.close()
    provenance = {**found.provenance, **described.provenance}
    return CheckReport(found.format, entry, signature, provenance, profile, found.suffix, told)


def confine(options: CheckOptions) -> None:
    """Bounds this process: address space, processor seconds, written bytes, open files, no core dump. Memory that is
    shared with a jail counts as written; it is allowed once the files turn out to need one."""
    seconds = math.ceil(options.timeout_s) + 1
    for kind, bound in (
        (resource.RLIMIT_AS, options.memory_bytes),
        (resource.RLIMIT_CPU, seconds * 4),
        (resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES + _shared_bytes(options)),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (most, most))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(MAX_WRITTEN_BYTES, hard), hard))


def _shared_bytes(options: CheckOptions) -> int:
    return 2 * Bounds.of({"jail": options.jail}).tensor_bytes


def _allow_written(most_bytes: int) -> None:
    """Raises the bound that holds now, as far as the one for good allows; where there is none, or a wider one, it stays
    as it is."""
    now, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if now != resource.RLIM_INFINITY and now < most_bytes:
        most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def _answer(folder: Path, options: CheckOptions) -> dict[str, Any]:
    try:
        return {"report": check_files(folder, options)}
    except ModelyardError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(
            PublishError(
                "warm_up_failed",
                f"The model needs more memory than the {options.memory_bytes} bytes of models.publish_memory_bytes.",
                field="models.publish_memory_bytes",
            )
        )
    except Exception as error:
        why = f"The model broke its reader ({type(error).__name__})."
        return _refusal(PublishError("model_unreadable", why, field="model"))


def _refusal(error: ModelyardError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": error.message, "detail": dict(error.detail)}}


def main() -> int:
    """Reads the options, answers on what was stdout; libraries that print do it elsewhere."""
    options = msgspec.json.decode(sys.stdin.buffer.read(), type=CheckOptions)
    answer_fd = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    confine(options)
    answer = msgspec.json.encode(_answer(Path(sys.argv[1]), options), enc_hook=str)
    with os.fdopen(answer_fd, "wb") as out:
        out.write(answer)
    # Not `sys.exit`: a library's threads must not keep a finished check alive.
    os._exit(0)


if __name__ == "__main__":
    main()
