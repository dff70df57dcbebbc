"""Which processes hold large versions for all workers."""

from __future__ import annotations

from pathlib import Path


def hosts_of(server_pid: int, manifest: str = "") -> list[int]:
    """Those of this server; with a manifest's digest, of this version."""
    named = f"modelyard.runtimes.shared.host\0{server_pid}\0{manifest}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if named in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found
