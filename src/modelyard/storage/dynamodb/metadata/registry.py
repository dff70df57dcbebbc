"""Versions, manifests, endpoints and their traffic in the table of metadata.

A version is written twice: under its model and name, where it is looked up, and in the order of publication, in which
all are listed. Manifests are compressed, and divided where an item would not hold them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from modelyard.audit.vocabulary import AuditAction
from modelyard.core.errors import InternalError
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Version
from modelyard.routing.ports import Endpoint
from modelyard.storage import refusals
from modelyard.storage.audit_row import endpoint_facts, version_facts
from modelyard.storage.dynamodb.attributes import Item, ordered, packed, parts_of, unpacked
from modelyard.storage.dynamodb.metadata.trail import AuditTrail
from modelyard.storage.dynamodb.metadata.transactions import Metadata, Transaction

ALL_TRAFFIC = 100
VERSIONS, MANIFESTS, ENDPOINTS = "version", "manifest", "endpoint"


class DynamoRegistry:
    """models.ports.Registry over the table of metadata. Changes are written down in `trail`."""

    def __init__(self, metadata: Metadata, trail: AuditTrail) -> None:
        self._metadata = metadata
        self._trail = trail

    def add_version(self, version: Version) -> bool:
        """Adds it, with the model's endpoint if it is the first; ConflictError("version_exists")."""
        return self._metadata.change(lambda t: self._add(t, version))

    def _add(self, t: Transaction, version: Version) -> bool:
        content = version.manifest.content_digest()
        stored = t.get(_of_model(version.model), version.version)
        if stored is not None:
            if stored["content_digest"] != content:
                raise refusals.version_exists(version.model, version.version)
            return False
        first = not names_of(self._metadata, version.model)
        if t.get(MANIFESTS, version.digest) is None:
            _put_manifest(t, version)
        number = t.head.published + 1  # order of publication, not of clocks: two machines may disagree about the time
        values = {
            "model": version.model,
            "version": version.version,
            "digest": version.digest,
            "content_digest": content,
            "created_at": float(version.created_at),
            "published": number,
        }
        t.put(_of_model(version.model), version.version, **values)
        t.put(VERSIONS, ordered(number), **values)
        t.move(published=number)
        if first:
            _put_endpoint(t, Endpoint(version.model, version.model, ((version.version, ALL_TRAFFIC),)))
        t.bump()
        subject = f"version:{version.model}/{version.version}"
        after = version_facts(version) | {"endpoint_made": first}
        self._trail.record(t, AuditAction.VERSION_PUBLISH, subject, None, after)
        return True

    def versions(self, model: str | None = None) -> tuple[Version, ...]:
        """Versions in the order they were added; NotFoundError("model_not_found")."""
        partition = VERSIONS if model is None else _of_model(model)
        _version, found = self._metadata.stable(lambda: self._read(list(self._metadata.all_of(partition))))
        if model is not None and not found:
            raise refusals.model_not_found(model)
        return found

    def version(self, model: str, version: str) -> Version:
        """One version; NotFoundError("model_not_found" | "version_not_found")."""
        self._metadata.head()  # what an earlier publication still had to write is there from here on
        found = self._metadata.get(_of_model(model), version)
        if found is not None:
            return self._read([found])[0]
        known = names_of(self._metadata, model)
        raise refusals.version_not_found(model, version, known) if known else refusals.model_not_found(model)

    def manifest(self, digest: str) -> Manifest | None:
        """A manifest by digest."""
        return read_manifests(self._metadata, (digest,)).get(digest)

    def _read(self, items: Sequence[Item]) -> tuple[Version, ...]:
        manifests = read_manifests(self._metadata, [item["digest"] for item in items])
        return tuple(
            Version(
                item["model"], item["version"], item["digest"], manifests[item["digest"]], float(item["created_at"])
            )
            for item in sorted(items, key=lambda item: int(item["published"]))
        )


class DynamoEndpointStore:
    """routing.ports.EndpointStore over the table of metadata. Changes are written down in `trail`."""

    def __init__(self, metadata: Metadata, trail: AuditTrail) -> None:
        self._metadata = metadata
        self._trail = trail

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, by name."""
        return self._metadata.stable(lambda: tuple(map(_endpoint, self._metadata.all_of(ENDPOINTS))))[1]

    def endpoint(self, name: str) -> Endpoint:
        """One endpoint; NotFoundError("endpoint_not_found")."""
        found = self._metadata.get(ENDPOINTS, name)
        if found is None:
            raise refusals.endpoint_not_found(name)
        return _endpoint(found)

    def set_traffic(self, name: str, weights: tuple[tuple[str, int], ...], revision: int | None = None) -> Endpoint:
        """Replaces the weights; NotFoundError("endpoint_not_found" | "version_not_found"), ConflictError."""

        def replace(t: Transaction) -> Endpoint:
            before = self.endpoint(name)
            if revision is not None and revision != before.revision:
                raise refusals.edit_conflict(name, revision, before.revision)
            known = names_of(self._metadata, before.model)
            for version, _share in weights:
                if version not in known:
                    raise refusals.version_not_found(before.model, version, known)
            after = msgspec.structs.replace(before, weights=weights, revision=before.revision + 1)
            _put_endpoint(t, after)
            t.bump()
            facts = endpoint_facts(before), endpoint_facts(after)
            self._trail.record(t, AuditAction.TRAFFIC_SET, f"endpoint:{name}", *facts)
            return after

        return self._metadata.change(replace)


def names_of(metadata: Metadata, model: str) -> tuple[str, ...]:
    """The versions of a model, oldest first."""
    items = metadata.all_of(_of_model(model))
    return tuple(item["version"] for item in sorted(items, key=lambda item: int(item["published"])))


def read_manifests(metadata: Metadata, digests: Sequence[str]) -> dict[str, Manifest]:
    """Manifests by digest; those that were never published are not in it."""
    firsts = metadata.get_many([(MANIFESTS, digest) for digest in digests])
    others = [(MANIFESTS, _part(item["sk"], number)) for item in firsts.values() for number in range(1, item["parts"])]
    all_parts = firsts | metadata.get_many(others)
    found: dict[str, Manifest] = {}
    for (_pk, digest), item in firsts.items():
        keys = [(MANIFESTS, _part(digest, number)) for number in range(item["parts"])]
        if any(key not in all_parts for key in keys):
            raise InternalError("internal", "A manifest is not whole.")
        found[digest] = msgspec.json.decode(unpacked(all_parts[key]["content"] for key in keys), type=Manifest)
    return found


def _put_manifest(t: Transaction, version: Version) -> None:
    parts = parts_of(packed(msgspec.json.encode(version.manifest, order="deterministic")))
    for number, part in enumerate(parts):
        t.put(MANIFESTS, _part(version.digest, number), content=part, parts=len(parts))


def _part(digest: str, number: int) -> str:
    return f"{digest}#{number:04d}" if number else digest


def _of_model(model: str) -> str:
    return f"model#{model}"


def _put_endpoint(t: Transaction, endpoint: Endpoint) -> None:
    t.put(ENDPOINTS, endpoint.name, document=msgspec.json.encode(endpoint).decode())


def _endpoint(item: Item) -> Endpoint:
    return msgspec.json.decode(item["document"], type=Endpoint)
