"""Which files a jailed process may open: a few folders, for reading. Landlock, the kernel's own sandbox for programs
without privileges (Linux 5.13 and newer). Source: Linux `include/uapi/linux/landlock.h`."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION, PATH_BENEATH = 1, 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3
ALL_BY_ABI = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""Every right over files that an ABI knows; newer ones know no other."""
TCP_SINCE, BIND_AND_CONNECT = 4, 3
SCOPE_SINCE, SOCKETS_AND_SIGNALS = 6, 3


def abi() -> int:
    """The version that this kernel speaks; 0 if it has none, or it is turned off."""
    return max(0, _syscall(CREATE_RULESET, None, 0, ASK_VERSION))


def read_only(paths: Iterable[Path]) -> None:
    """From here on this thread, and those that it starts, may read below these paths, and open nothing else; needs
    no_new_privs. Paths that are not there are left out. OSError."""
    version = abi()
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock (Linux 5.13 and newer, not turned off at boot)")
    ruleset = _ruleset(version)
    try:
        for path in paths:
            _allow(ruleset, path)
        _checked(_syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _ruleset(version: int) -> int:
    attributes = struct.pack("=Q", ALL_BY_ABI[min(version, max(ALL_BY_ABI))])
    if version >= TCP_SINCE:
        attributes += struct.pack("=Q", BIND_AND_CONNECT)
    if version >= SCOPE_SINCE:
        attributes += struct.pack("=Q", SOCKETS_AND_SIGNALS)
    return _checked(_syscall(CREATE_RULESET, attributes, len(attributes), 0))


def _allow(ruleset: int, path: Path) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        rule = struct.pack("=Qi", READ_FILE | (READ_DIR if folder else 0), opened)
        _checked(_syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
    finally:
        os.close(opened)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _syscall(*arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(libc.syscall(*wide))
