"""The object store, if there is one: whether it answers, and how much its copies may grow here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from modelyard.app.folder import DataFolder
from modelyard.cli.doctor.findings import Finding, State, found, judged
from modelyard.cli.doctor.folder import AREA
from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelyardError
from modelyard.core.settings import MIB, Settings
from modelyard.storage.artifacts import CACHE_FOLDER


def artifacts(folder: DataFolder, settings: Settings) -> Iterator[Finding]:
    """Where the files of versions are. The bucket is asked for an object that is not there; nothing is written."""
    if settings.artifacts.url is None:
        yield found(AREA, "artifacts", "in the data folder")
        return
    from modelyard.storage.s3.store import probe

    try:
        yield found(AREA, "artifacts", f"{probe(settings.artifacts, SystemClock())} answers")
    except ModelyardError as error:
        said, _, remedy = error.message.rstrip(".").partition(": ")
        yield Finding(AREA, "artifacts", State.PROBLEM, f"{said}.", f"{remedy[:1].upper()}{remedy[1:]}.")
    place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
    free, bound = shutil.disk_usage(place).free, settings.artifacts.cache_bytes
    copies = (folder.path / CACHE_FOLDER).rglob("*")
    used = sum(path.stat().st_size for path in copies if path.is_file())
    said = f"{used // MIB:,} of at most {bound // MIB:,} MiB; {free // MIB:,} MiB free"
    yield judged(AREA, "artifact cache", said, free + used > bound, "Free some space, or lower artifacts.cache_bytes.")
