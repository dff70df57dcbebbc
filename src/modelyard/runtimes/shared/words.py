"""What a worker and a shared process say, beside the words that every process speaks (remote/wire.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.models.manifest import Manifest
from modelyard.runtimes.remote.wire import Answer, Failed, Loaded, Placed, Run


class Hosted(msgspec.Struct, frozen=True):
    """What a process is started with: the version's files, the runtime's options, the descriptor that it listens on,
    the server that it must not outlive, how long it stays without a worker, and how much memory its runs may take
    beside the loaded model."""

    folder: str
    manifest: Manifest
    options: dict[str, Any]
    listener: int
    server: int
    linger_s: float
    run_bytes: int


class Attach(msgspec.Struct, frozen=True, tag=True):
    """To the process, first of all, with a descriptor beside it: this worker's memory, `half_bytes` for inputs and as
    many for outputs. Answered once the model is loaded."""

    half_bytes: int


class Compact(msgspec.Struct, frozen=True, tag=True):
    """To the process: run it once more, and give back what larger runs reserved. Answered without outputs."""

    id: int
    inputs: tuple[Placed, ...]


Asked = Attach | Run | Compact


class Hello(msgspec.Struct, frozen=True, tag=True):
    """From the process, first of all. `incarnation` is another after each start."""

    pid: int
    incarnation: str


class Refused(Failed, frozen=True, tag=True):
    """From the process: as Failed, with the error's detail."""

    detail: Mapping[str, Any] = msgspec.field(default_factory=dict)


Said = Hello | Loaded | Answer | Refused
