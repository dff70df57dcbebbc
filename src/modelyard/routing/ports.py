"""What routing needs from the world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec


class Endpoint(msgspec.Struct, frozen=True):
    """The public name that clients call. `weights` are (version, share in percent), in order, sum 100; `revision`
    grows with every change."""

    name: str
    model: str
    weights: tuple[tuple[str, int], ...]
    revision: int = 1


def routed(endpoints: Iterable[Endpoint]) -> frozenset[tuple[str, str]]:
    """The versions that have traffic, each with its model."""
    return frozenset((one.model, version) for one in endpoints for version, share in one.weights if share > 0)


class EndpointStore(Protocol):
    """Where endpoints live. Each change bumps the snapshot version in the same transaction."""

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, by name."""

    def endpoint(self, name: str) -> Endpoint:
        """One endpoint; NotFoundError("endpoint_not_found")."""

    def set_traffic(self, name: str, weights: tuple[tuple[str, int], ...], revision: int | None = None) -> Endpoint:
        """Replaces the weights, if the endpoint is at `revision` (None: whatever it is at), in one transaction.
        NotFoundError("endpoint_not_found" | "version_not_found"), ConflictError("edit_conflict")."""
