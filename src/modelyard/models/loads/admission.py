"""May this version be given memory? Asked before it exists, and before it gets traffic (PERF-3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cached_property

from modelyard.core.errors import ConflictError, NotFoundError
from modelyard.core.settings import Settings
from modelyard.models.loads.memory import is_pinned, model_memory_bytes, need_bytes
from modelyard.models.ports import Key, Registry, Version

MOST_HELD = 10
"""How many of those that hold memory a refusal names, the largest first."""


class Admission:
    """Estimates of this host: what is added must fit beside all that stays in memory. `routed` are the versions with
    traffic now."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        routed: Callable[[], Collection[Key]],
        has_bytes: int | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._routed = routed
        self._given_bytes = has_bytes

    @cached_property
    def _has_bytes(self) -> int | None:
        return self._given_bytes if self._given_bytes is not None else model_memory_bytes(self._settings)

    def version(self, version: Version) -> None:
        """A version that is being published; ConflictError("memory_insufficient")."""
        if self._has_bytes is not None:
            self._check([version], self._staying())

    def traffic(self, keys: Iterable[Key]) -> None:
        """Versions that are to have traffic, beside all that has it now: a switch needs both. What has it already is
        not asked for again. ConflictError("memory_insufficient"); what does not exist is somebody else's refusal."""
        if self._has_bytes is None:
            return
        staying = self._staying()
        there = {(one.model, one.version) for one in staying}
        new = [known for key in keys if key not in there and (known := self._known(key)) is not None]
        if new:
            self._check(new, staying)

    def _staying(self) -> list[Version]:
        routed = set(self._routed())
        known = ((one.model, one.version, one) for one in self._registry.versions())
        return [
            one for model, name, one in known if (model, name) in routed or is_pinned((model, name), self._settings)
        ]

    def _known(self, key: Key) -> Version | None:
        try:
            return self._registry.version(*key)
        except NotFoundError:
            return None

    def _check(self, new: Collection[Version], staying: Collection[Version]) -> None:
        has = self._has_bytes or 0
        needs = sum(need_bytes(one, self._settings) for one in new)
        held = {f"{one.model}/{one.version}": need_bytes(one, self._settings) for one in staying}
        if needs + sum(held.values()) > has:
            raise shortage([f"{one.model}/{one.version}" for one in new], needs, has, held)


def shortage(names: list[str], needs: int, has: int, held: dict[str, int]) -> ConflictError:
    """The refusal, with its numbers; `held` are the estimates of what stays, by `model/version`."""
    largest = dict(sorted(held.items(), key=lambda one: -one[1])[:MOST_HELD])
    free = max(0, has - sum(held.values()))
    return ConflictError(
        "memory_insufficient",
        f"{', '.join(names)} would take about {mib(needs)} of memory in all workers; {mib(free)} of the {mib(has)} for "
        "models are free beside the versions that have traffic.",
        field="models.memory_bytes",
        expected=f"at most {free} bytes",
        got=needs,
        needs_bytes=needs,
        has_bytes=has,
        held_bytes=sum(held.values()),
        held_by=largest,
    )


def mib(size_bytes: int) -> str:
    """Whole MiB, rounded up."""
    return f"{-(-size_bytes // (1024 * 1024)):,} MiB"
