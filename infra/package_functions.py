"""Packs every `modules/*/functions/<name>/index.py` into `<name>.zip` beside the folder, the same bytes everywhere.

The zips are committed: Terraform then needs no archive provider and no build before a plan, and the hash in the plan
is the hash of what was reviewed. `--check` packs nothing and names each zip that is not what its source gives.

Usage: python3 infra/package_functions.py [--check]
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold: packing twice gives the same bytes


def packed(source: Path) -> bytes:
    """Return a zip that holds only `source`, stored uncompressed: zlib's bytes differ between its versions."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo(source.name, EPOCH)
        entry.create_system = 3
        entry.external_attr = 0o100444 << 16
        archive.writestr(entry, source.read_bytes())
    return buffer.getvalue()


def target(source: Path) -> Path:
    """Return where the zip of `source` belongs: functions/<name>/index.py -> functions/<name>.zip."""
    return source.parent.with_suffix(".zip")


def stale(source: Path) -> bool:
    """Tell whether the zip of `source` is missing or holds something else."""
    return not target(source).exists() or target(source).read_bytes() != packed(source)


def main(arguments: list[str]) -> int:
    """Pack what is stale, or only name it with `--check`; return 1 when a check found something."""
    found = [source for source in sorted(ROOT.glob("modules/*/functions/*/index.py")) if stale(source)]
    for source in found:
        print(target(source).relative_to(ROOT))
        if "--check" not in arguments:
            target(source).write_bytes(packed(source))
    return int("--check" in arguments and bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
