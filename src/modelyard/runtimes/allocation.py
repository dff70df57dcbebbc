"""What the C library keeps of the memory that a run has freed."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGE_BYTES = 64 * 1024**2, 32 * 1024**2


def keep_freed() -> None:
    """Up to KEPT_BYTES at the end of each of its heaps wait for the next run; an array above LARGE_BYTES goes back to
    the kernel when it is freed. By itself glibc gives the pages of each layer back, and a run of 100 rows spends a
    fifth of its time on getting them again. Other C libraries do as they do. Source: mallopt(3)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
