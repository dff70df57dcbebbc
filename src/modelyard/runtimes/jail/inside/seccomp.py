"""Which system calls a jailed process may make: those that computing needs, on what it has open already.

Everything else fails with EPERM: sockets, new processes, programs, writing, signals to others, tracing, namespaces, and
whatever the kernel learns tomorrow. A filter of our own in classic BPF: bindings of libseccomp need that library beside
them, for a table of a hundred numbers that never change. Sources: Linux `include/uapi/linux/filter.h`,
`seccomp.h`, `audit.h`; `arch/x86/entry/syscalls/syscall_64.tbl`, `include/uapi/asm-generic/unistd.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping, Sequence

LOAD, AND, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
KILL_PROCESS, REFUSE, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
NUMBER_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16
X32_BIT = 0x40000000
SET_MODE_FILTER, TSYNC = 1, 1

ARCHES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP: Mapping[str, int] = {"x86_64": 317, "aarch64": 277}

_SIMPLE: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, None), "pipe": (22, None),
    "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23),
    "dup2": (33, None), "nanosleep": (35, 101), "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160),
    "fsync": (74, 82), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "readlink": (89, None),
    "umask": (95, 166), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "getpgrp": (111, None), "getgroups": (115, 158),
    "getresuid": (118, 148), "getresgid": (120, 150), "getpgid": (121, 155), "getsid": (124, 156),
    "capget": (125, 90), "sigaltstack": (131, 132), "statfs": (137, 43), "fstatfs": (138, 44),
    "getpriority": (140, 141), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "arch_prctl": (158, None), "gettid": (186, 178), "time": (201, None), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "epoll_create": (213, None), "getdents64": (217, 61),
    "set_tid_address": (218, 96), "restart_syscall": (219, 128), "fadvise64": (221, 223),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "epoll_wait": (232, None), "epoll_ctl": (233, 21), "newfstatat": (262, 79), "readlinkat": (267, 78),
    "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99),
    "get_robust_list": (274, 100), "epoll_pwait": (281, 22), "eventfd2": (290, 19), "epoll_create1": (291, 20),
    "dup3": (292, 24), "pipe2": (293, 59), "preadv": (295, 69), "getcpu": (309, 168), "getrandom": (318, 278),
    "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293), "close_range": (436, 436),
    "faccessat2": (439, 439), "futex_waitv": (449, 449),
}  # fmt: skip
"""Allowed with any arguments; numbers on x86-64 and arm64."""
ABSENT = {"clone3": (435, 435), "openat2": (437, 437)}
"""Answered with ENOSYS: the C library then takes the older call, whose arguments can be looked at."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000  # the last: O_TMPFILE's own bit
CLONE_THREAD, NEW_NAMESPACES = 0x00010000, 0x7E020080
OWN_COMMANDS = (0, 1, 2, 3, 4, 1030, 1034)
"""fcntl: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GET_SEALS. Not F_SETOWN: it sends signals."""
OWN_CONTROLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""ioctl: TCGETS (isatty), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
OWN_OPTIONS = (2, 3, 15, 16, 21, 23, 39, 0x53564D41)
"""prctl: what reads, and PR_SET_NAME, PR_SET_VMA."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant."""


def jail_filter(arch: str, pid: int) -> list[Instruction]:
    """The program for a process of this number on x86_64 or aarch64; KeyError for another machine."""
    at = list(ARCHES).index(arch)
    program: list[Instruction] = [
        (LOAD, 0, 0, ARCH_AT), (EQUAL, 1, 0, ARCHES[arch]), (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, NUMBER_AT),
    ]  # fmt: skip
    if arch == "x86_64":  # the same calls under other numbers, with 32-bit pointers
        program += [(AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    for name, checks in _looked_at(pid).items():
        number = _NUMBERS[name][at]
        if number is not None:
            program += [(EQUAL, 0, len(checks), number), *checks]
    for numbers in ABSENT.values():
        program += [(EQUAL, 0, 1, numbers[at]), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    for pair in _SIMPLE.values():
        simple = pair[at]
        if simple is not None:
            program += [(EQUAL, 0, 1, simple), (RETURN, 0, 0, ALLOW)]
    return [*program, (RETURN, 0, 0, REFUSE | errno.EPERM)]


_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "clone": (56, 220), "fcntl": (72, 25), "ioctl": (16, 29),
    "prctl": (157, 167), "prlimit64": (302, 261), "kill": (62, 129), "tgkill": (234, 131),
}  # fmt: skip


def _looked_at(pid: int) -> dict[str, list[Instruction]]:
    """Calls that are allowed with some arguments alone."""
    return {
        "open": _without(1, WRITING),
        "openat": _without(2, WRITING),
        "clone": _thread_only(),
        "fcntl": _one_of(1, OWN_COMMANDS),
        "ioctl": _one_of(1, OWN_CONTROLS),
        "prctl": _one_of(0, OWN_OPTIONS),
        "prlimit64": _reads_own_limits(),
        "kill": _one_of(0, (pid,)),
        "tgkill": _one_of(0, (pid,)),
    }


def _argument(number: int, high: bool = False) -> Instruction:
    return (LOAD, 0, 0, ARGUMENTS_AT + 8 * number + (4 if high else 0))  # both machines are little-endian


def _without(argument: int, bits: int) -> list[Instruction]:
    return [
        _argument(argument), (ANY_BIT, 0, 1, bits), (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def _thread_only() -> list[Instruction]:
    """A thread of this process, in its own namespaces."""
    return [
        _argument(0), (ANY_BIT, 0, 1, CLONE_THREAD), (ANY_BIT, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def _one_of(argument: int, values: Sequence[int]) -> list[Instruction]:
    allowed: list[Instruction] = [(EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_argument(argument), *allowed, (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW)]


def _reads_own_limits() -> list[Instruction]:
    """Its own (0) or by its own number never matters here: only reading, so the new limit's address is null."""
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    return [
        _argument(0), (EQUAL, 1, 0, 0), refuse,
        _argument(2), (EQUAL, 1, 0, 0), refuse,
        _argument(2, high=True), (EQUAL, 1, 0, 0), refuse,
        (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def apply_filter() -> None:
    """Puts the filter on all threads of this process, for good; needs no_new_privs. OSError."""
    arch = platform.machine()
    if arch not in ARCHES:
        raise OSError(errno.ENOSYS, f"no filter is written for {arch}")
    program = b"".join(struct.pack("=HBBI", *step) for step in jail_filter(arch, os.getpid()))
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SECCOMP[arch], SET_MODE_FILTER, TSYNC, ctypes.byref(header)) != 0:
        number = ctypes.get_errno() or errno.EBUSY
        raise OSError(number, os.strerror(number))
