"""Is there room? Permits for predictions in flight: exact, refused at once, never queued (promise P4)."""

from __future__ import annotations


class Permits:
    """So many permits, for one thread (the loop's). Every permit taken is released exactly once, by one place."""

    __slots__ = ("_taken", "capacity")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("there must be at least one permit")
        self.capacity = capacity
        self._taken = 0

    @property
    def taken(self) -> int:
        """Permits that are out now."""
        return self._taken

    def take(self) -> bool:
        """Whether there was a permit left; it is the caller's then."""
        if self._taken >= self.capacity:
            return False
        self._taken += 1
        return True

    def release(self) -> None:
        """Gives a permit back. ValueError if none is out: somebody released twice."""
        if self._taken <= 0:
            raise ValueError("a permit was released that nobody holds")
        self._taken -= 1
