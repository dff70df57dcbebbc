"""Every trick of an archive, sent once to a real server: a refusal with its code, and not one file more on its disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from server import Reply, RunningServer
from trained import infer_body, simple

from archivetricks import TRICKS, tar

GIB = 1024**3
CLIMBS = 8
"""Folders from the one that an archive is unpacked in to above all that the server calls its own."""
MOVING = ("spool", "-wal", "-shm", "-journal")
"""What a server writes by itself."""
Sent = Callable[[Path], bytes]


def _claims(size_bytes: int) -> bytes:
    """A header that states more than a version may hold, and no content."""
    info = tarfile.TarInfo("model.onnx")
    info.size = size_bytes
    return info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024)


def _through_link(root: Path) -> bytes:
    """A link that leads out, and a file behind it."""
    link = tarfile.TarInfo("l")
    link.type, link.linkname = tarfile.SYMTYPE, str(root)
    return link.tobuf() + tar(("l/got_out", b"1"))


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../got_out", b"1")
    return out.getvalue()


def _linked(kind: bytes, to: Path) -> bytes:
    """A good model whose neighbour is a link to what the server keeps."""
    model, link = tarfile.TarInfo("model.onnx"), tarfile.TarInfo("l")
    content = simple()
    model.size, link.type, link.linkname = len(content), kind, str(to)
    return model.tobuf() + content + bytes(-len(content) % tarfile.BLOCKSIZE) + link.tobuf() + bytes(1024)


OUTSIDE: Mapping[str, Sent] = {
    **{f"up {n}": lambda _, n=n: tar(("../" * n + "got_out", b"1")) for n in range(1, CLIMBS + 1)},
    "up behind a good model": lambda _: tar(("model.onnx", simple()), ("a/../../../got_out", b"1")),
    "absolute": lambda root: tar((f"{root}/got_out", b"1")),
    "folder above": lambda _: tar(("../got_out/", None)),
    "through a link": _through_link,
    "link to the data": lambda root: _linked(tarfile.SYMTYPE, root / "data"),
    "hard link to the log": lambda root: _linked(tarfile.LNKTYPE, root / "data.log"),
    "block device": lambda _: tar(("d", b""), type=tarfile.BLKTYPE),
    "zip": lambda _: _zip(),
    "gzip of a bomb": lambda _: gzip.compress(bytes(64 * 1024**2)),
}
"""What only a server shows: names that would lead to its own folders and beside them."""
BOMBS: Mapping[str, Sent] = {"9 GiB": lambda _: _claims(9 * GIB), "exabytes": lambda _: _claims(2**60)}
SENT: Mapping[str, Sent] = {
    **{name: lambda _, make=make: make() for name, make in TRICKS.items()},
    **{f"outside: {name}": make for name, make in OUTSIDE.items()},
    **{f"bomb: {name}": make for name, make in BOMBS.items()},
}
OTHERS: Mapping[str, tuple[int, str]] = {
    "reserved": (422, "manifest_invalid"),
    **{f"bomb: {name}": (413, "body_too_large") for name in BOMBS},
}
"""Status and code of those that are not archive_unsafe."""


def _publish(server: RunningServer, archive: bytes) -> Reply:
    headers = {"content-type": "application/x-tar"}
    return server.ask("PUT", "/v1/models/tricked/versions/1", archive, headers=headers)


def _names(root: Path) -> set[str]:
    """Everything below the server's folder and beside it."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return {name for name in found if not any(part in name for part in MOVING)}


@pytest.fixture(scope="module")
def before(fortress: RunningServer) -> tuple[set[str], list[int]]:
    """The files and the workers, once an archive without a trick has been unpacked, and its model refused."""
    reply = _publish(fortress, tar(("model.onnx", b"nothing")))
    assert (reply.status, reply.json["code"]) == (422, "model_unreadable")
    return _names(fortress.data.parent), fortress.worker_pids()


@pytest.mark.parametrize("trick", SENT)
def test_a_trick_is_refused_and_leaves_nothing(
    fortress: RunningServer, before: tuple[set[str], list[int]], trick: str
) -> None:
    """F10 S8 S9: status and code are the trick's; no file is left above, beside or in the server's folders; the same
    worker answers the neighbour's requests."""
    root, (files, workers) = fortress.data.parent, before
    reply = _publish(fortress, SENT[trick](root))
    assert (reply.status, reply.json["code"]) == OTHERS.get(trick, (422, "archive_unsafe")), reply.body
    assert str(root) not in reply.json["error"] or trick == "outside: absolute"  # which is what was sent
    assert _names(root) == files
    assert not [place for place in (root, *root.parents) if (place / "got_out").exists()]
    assert not Path("/tmp/modelyard-x").exists()
    row = np.ones((1, 16), np.int64)
    answered = fortress.ask("POST", "/v2/models/simple/infer", infer_body(INPUT0=row, INPUT1=row))
    assert answered.status == 200, answered.body
    assert fortress.worker_pids() == workers


def test_none_became_a_model(fortress: RunningServer, before: tuple[set[str], list[int]]) -> None:
    """S8: after all of them there is no such model; an archive that its sender compressed is not even unpacked."""
    assert fortress.ask("GET", "/v1/models/tricked").status == 404
    for compressed in ("gzip", "br"):
        headers = {"content-type": "application/x-tar", "content-encoding": compressed}
        reply = fortress.ask("PUT", "/v1/models/tricked/versions/1", gzip.compress(b""), headers=headers)
        assert (reply.status, reply.json["code"]) == (415, "encoding_unsupported")
    assert (_names(fortress.data.parent), fortress.worker_pids()) == before
    print(f"{len(SENT)} tricks refused")
