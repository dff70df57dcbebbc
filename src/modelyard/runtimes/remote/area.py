"""Memory that two processes share for the tensors of their runs: one half for inputs, the other for outputs."""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Nobody can cut the memory under the other side's feet."""


class Area:
    """Anonymous memory of a fixed size. `given` and `answered` are `half_bytes` each; `descriptor` is for the other
    side, and is closed by `handed_over`."""

    def __init__(self, name: str, half_bytes: int) -> None:
        self.half_bytes = half_bytes
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, 2 * half_bytes)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)
            self._map = mmap.mmap(self.descriptor, 2 * half_bytes)
        except BaseException:
            self.handed_over()
            raise
        memory = memoryview(self._map)
        self.given, self.answered = memory[:half_bytes], memory[half_bytes:]

    def handed_over(self) -> None:
        """The other side has its own descriptor now."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def give_back(self, used_bytes: int) -> None:
        """Frees its pages after a large run."""
        if used_bytes > self.half_bytes // 16:
            with suppress(OSError, ValueError):
                self._map.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """At once, not when the garbage collector comes by: it is as large as models.jail_tensor_bytes twice."""
        self.handed_over()
        self.given.release()
        self.answered.release()
        with suppress(BufferError):  # an array that looks into it is on its way out
            self._map.close()
