"""Archives that try something: one for each trick, and none that may come through."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping


def tar(*members: tuple[str, bytes | None], form: int = tarfile.PAX_FORMAT, **fields: object) -> bytes:
    """An archive of these members, None for a folder; `fields` replace what each header says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def _sparse() -> bytes:
    info = tarfile.TarInfo("s")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "999999999999"}
    return info.tobuf(format=tarfile.PAX_FORMAT) + bytes(1024)


def _huge_header() -> bytes:
    info = tarfile.TarInfo("h")
    info.type, info.size = b"x", 2**33
    return info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024)


def _long_number() -> bytes:
    record = b"1" * 5000 + b" path=x\n"
    info = tarfile.TarInfo("n")
    info.type, info.size = b"x", len(record)
    return info.tobuf(format=tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512) + tar(("a", b"1"))


def _bad_sum() -> bytes:
    data = bytearray(tar(("a", b"1")))
    data[0] ^= 1
    return bytes(data)


TRICKS: Mapping[str, Callable[[], bytes]] = {
    "up": lambda: tar(("../x", b"1")),
    "up inside": lambda: tar(("a/../../x", b"1")),
    "absolute": lambda: tar(("/tmp/modelyard-x", b"1")),
    "backslash": lambda: tar(("..\\x", b"1")),
    "newline": lambda: tar(("a\nb", b"1")),
    "long": lambda: tar(("x" * 300, b"1")),
    "long in all": lambda: tar(("/".join(["x" * 250] * 16), b"1")),
    "folders that nobody names": lambda: tar(*((f"{i}/a/b/c/d/e/f/g/h/i/j/k/l/m", b"") for i in range(1000))),
    "right to left": lambda: tar(("\u202ex", b"1")),
    "symlink": lambda: tar(("l", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": lambda: tar(("l", b""), type=tarfile.LNKTYPE, linkname="../x"),
    "device": lambda: tar(("d", b""), type=tarfile.CHRTYPE),
    "pipe": lambda: tar(("d", b""), type=tarfile.FIFOTYPE),
    "twice": lambda: tar(("a", b"1"), ("a", b"2")),
    "twice by case": lambda: tar(("a", b"1"), ("A", b"2")),
    "file as folder": lambda: tar(("a", b"1"), ("a/b", b"2")),
    "folder as file": lambda: tar(("a", b"1"), ("a/", None)),
    "folder in file": lambda: tar(("a", b"1"), ("a/b/", None)),
    "reserved": lambda: tar(("manifest.json", b"{}")),
    "sparse": _sparse,
    "huge header": _huge_header,
    "a length of 5,000 digits": _long_number,
    "checksum": _bad_sum,
    "cut off": lambda: tar(("a", b"1" * 5000))[:1500],
    "empty": lambda: b"",
    "gzip": lambda: b"\x1f\x8b" + bytes(600),
    "text": lambda: b"hello" * 300,
    "many": lambda: tar(*((f"f{i}", b"") for i in range(10_001))),
}
"""By what each tries; made when it is asked for."""
