"""Versions and endpoints in memory."""

from __future__ import annotations

import msgspec

from modelyard.audit.vocabulary import AuditAction
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Version
from modelyard.routing.ports import Endpoint
from modelyard.storage import refusals
from modelyard.storage.audit_row import endpoint_facts, version_facts
from modelyard.testing.keys import SnapshotVersion


class MemoryRegistry:
    """models.ports.Registry in memory, safe for threads. `endpoints` shows the endpoints it makes."""

    def __init__(self, snapshot_version: SnapshotVersion | None = None) -> None:
        self._version = snapshot_version or SnapshotVersion()
        self._versions: dict[tuple[str, str], Version] = {}
        self._manifests: dict[str, Manifest] = {}
        self.endpoints = MemoryEndpointStore(self, self._version)

    def add_version(self, version: Version) -> bool:
        """Adds it, with the model's endpoint if it is the first; ConflictError("version_exists")."""
        place = (version.model, version.version)
        with self._version.lock:
            stored = self._versions.get(place)
            if stored is not None:
                if stored.manifest.content_digest() != version.manifest.content_digest():
                    raise refusals.version_exists(*place)
                return False
            first = not self.names(version.model)
            self._versions[place] = version
            self._manifests[version.digest] = version.manifest
            if first:
                self.endpoints.create(version.model, version.version)
            self._version.bump()
            after = version_facts(version) | {"endpoint_made": first}
            self._version.audit.record(AuditAction.VERSION_PUBLISH, "version:{}/{}".format(*place), None, after)
            return True

    def versions(self, model: str | None = None) -> tuple[Version, ...]:
        """Versions in the order they were added; NotFoundError("model_not_found")."""
        with self._version.lock:
            found = tuple(v for v in self._versions.values() if model is None or v.model == model)
        if model is not None and not found:
            raise refusals.model_not_found(model)
        return found

    def version(self, model: str, version: str) -> Version:
        """One version; NotFoundError("model_not_found" | "version_not_found")."""
        found = self._versions.get((model, version))
        if found is not None:
            return found
        known = self.names(model)
        raise refusals.version_not_found(model, version, known) if known else refusals.model_not_found(model)

    def manifest(self, digest: str) -> Manifest | None:
        """A manifest by digest."""
        return self._manifests.get(digest)

    def names(self, model: str) -> tuple[str, ...]:
        """The versions of a model, oldest first; empty for an unknown one."""
        with self._version.lock:
            return tuple(name for owner, name in self._versions if owner == model)


class MemoryEndpointStore:
    """routing.ports.EndpointStore in memory, safe for threads; made by its registry."""

    def __init__(self, registry: MemoryRegistry, snapshot_version: SnapshotVersion) -> None:
        self._registry = registry
        self._version = snapshot_version
        self._endpoints: dict[str, Endpoint] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, by name."""
        with self._version.lock:
            return tuple(self._endpoints[name] for name in sorted(self._endpoints))

    def endpoint(self, name: str) -> Endpoint:
        """One endpoint; NotFoundError("endpoint_not_found")."""
        found = self._endpoints.get(name)
        if found is None:
            raise refusals.endpoint_not_found(name)
        return found

    def set_traffic(self, name: str, weights: tuple[tuple[str, int], ...], revision: int | None = None) -> Endpoint:
        """Replaces the weights; NotFoundError("endpoint_not_found" | "version_not_found"), ConflictError."""
        with self._version.lock:
            before = self.endpoint(name)
            if revision is not None and revision != before.revision:
                raise refusals.edit_conflict(name, revision, before.revision)
            known = self._registry.names(before.model)
            for version, _share in weights:
                if version not in known:
                    raise refusals.version_not_found(before.model, version, known)
            after = msgspec.structs.replace(before, weights=weights, revision=before.revision + 1)
            self._endpoints[name] = after
            self._version.bump()
            facts = endpoint_facts(before), endpoint_facts(after)
            self._version.audit.record(AuditAction.TRAFFIC_SET, f"endpoint:{name}", *facts)
            return after

    def create(self, model: str, version: str) -> None:
        """An endpoint of the model's name that sends everything to this version; called under the lock."""
        self._endpoints[model] = Endpoint(model, model, ((version, 100),))
