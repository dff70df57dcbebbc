"""Versions, manifests, endpoints and their traffic in the database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from modelyard.audit.vocabulary import AuditAction
from modelyard.models.manifest import Manifest
from modelyard.models.ports import Version
from modelyard.routing.ports import Endpoint
from modelyard.storage import refusals
from modelyard.storage.audit_row import endpoint_facts, version_facts
from modelyard.storage.sql import changes, dialects, schema
from modelyard.storage.sql.audit.trail import AuditTrail
from modelyard.storage.sql.database import Database

ALL_TRAFFIC = 100


class SqlRegistry:
    """models.ports.Registry over a database. Changes are written down in `trail`."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    def add_version(self, version: Version) -> bool:
        """Adds it, with the model's endpoint if it is the first; ConflictError("version_exists")."""
        with self._database.write() as connection:
            if _is_there(connection, version):
                return False
            first = not _knows(connection, version.model)
            if first:
                connection.execute(insert(schema.models).values(name=version.model))
            _insert(connection, version)
            if first:
                create_endpoint(connection, version.model, version.version)
            changes.bump(connection)
            subject = f"version:{version.model}/{version.version}"
            after = version_facts(version) | {"endpoint_made": first}
            self._trail.record(connection, AuditAction.VERSION_PUBLISH, subject, None, after)
            return True

    def versions(self, model: str | None = None) -> tuple[Version, ...]:
        """Versions in the order they were added; NotFoundError("model_not_found")."""
        wanted = _versions()
        if model is not None:
            wanted = wanted.where(schema.versions.c.model == model)
        with self._database.read() as connection:
            found = tuple(map(_version, connection.execute(wanted)))
        if model is not None and not found:
            raise refusals.model_not_found(model)
        return found

    def version(self, model: str, version: str) -> Version:
        """One version; NotFoundError("model_not_found" | "version_not_found")."""
        mine = schema.versions.c.model == model
        with self._database.read() as connection:
            found = connection.execute(_versions().where(mine, schema.versions.c.version == version)).one_or_none()
            if found is not None:
                return _version(found)
            known = version_names(connection, model)
        raise refusals.version_not_found(model, version, known) if known else refusals.model_not_found(model)

    def manifest(self, digest: str) -> Manifest | None:
        """A manifest by digest."""
        with self._database.read() as connection:
            return read_manifest(connection, digest)


def read_manifest(connection: Connection, digest: str) -> Manifest | None:
    """A manifest by digest, None if it was never published."""
    content = connection.scalar(select(schema.manifests.c.content).where(schema.manifests.c.digest == digest))
    return None if content is None else msgspec.json.decode(content, type=Manifest)


def _is_there(connection: Connection, version: Version) -> bool:
    stored = connection.scalar(
        select(schema.versions.c.content_digest).where(
            schema.versions.c.model == version.model, schema.versions.c.version == version.version
        )
    )
    if stored is not None and stored != version.manifest.content_digest():
        raise refusals.version_exists(version.model, version.version)
    return stored is not None


def _knows(connection: Connection, model: str) -> bool:
    return connection.scalar(select(schema.models.c.name).where(schema.models.c.name == model)) is not None


def _insert(connection: Connection, version: Version) -> None:
    content = msgspec.json.encode(version.manifest, order="deterministic").decode()
    connection.execute(
        dialects.insert_new(connection, schema.manifests), {"digest": version.digest, "content": content}
    )
    # Order of publication, not of clocks: two machines may disagree about the time.
    sequence = connection.execute(select(func.coalesce(func.max(schema.versions.c.sequence), 0) + 1)).scalar_one()
    connection.execute(
        insert(schema.versions).values(
            model=version.model,
            version=version.version,
            digest=version.digest,
            content_digest=version.manifest.content_digest(),
            created_at=version.created_at,
            sequence=sequence,
        )
    )


def _versions() -> Select[Any]:
    v = schema.versions.c
    columns = select(v.model, v.version, v.digest, v.created_at, schema.manifests.c.content)
    return columns.join(schema.manifests, v.digest == schema.manifests.c.digest).order_by(v.sequence)


def _version(row: Row[Any]) -> Version:
    manifest = msgspec.json.decode(row.content, type=Manifest)
    return Version(row.model, row.version, row.digest, manifest, row.created_at)


class SqlEndpointStore:
    """routing.ports.EndpointStore over a database. Changes are written down in `trail`."""

    def __init__(self, database: Database, trail: AuditTrail) -> None:
        self._database = database
        self._trail = trail

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, by name."""
        with self._database.read() as connection:
            return _endpoints(connection.execute(_rows()))

    def endpoint(self, name: str) -> Endpoint:
        """One endpoint; NotFoundError("endpoint_not_found")."""
        with self._database.read() as connection:
            return _endpoint(connection, name)

    def set_traffic(self, name: str, weights: tuple[tuple[str, int], ...], revision: int | None = None) -> Endpoint:
        """Replaces the weights; NotFoundError("endpoint_not_found" | "version_not_found"), ConflictError."""
        mine = schema.endpoints.c.name == name
        with self._database.write() as connection:
            before = _endpoint(connection, name)
            if revision is not None and revision != before.revision:
                raise refusals.edit_conflict(name, revision, before.revision)
            known = version_names(connection, before.model)
            for version, _share in weights:
                if version not in known:
                    raise refusals.version_not_found(before.model, version, known)
            after = msgspec.structs.replace(before, weights=weights, revision=before.revision + 1)
            connection.execute(delete(schema.traffic).where(schema.traffic.c.endpoint == name))
            _insert_weights(connection, after)
            connection.execute(update(schema.endpoints).where(mine).values(revision=after.revision))
            changes.bump(connection)
            facts = endpoint_facts(before), endpoint_facts(after)
            self._trail.record(connection, AuditAction.TRAFFIC_SET, f"endpoint:{name}", *facts)
            return after


def version_names(connection: Connection, model: str) -> tuple[str, ...]:
    """The versions of a model, oldest first."""
    mine = select(schema.versions.c.version).where(schema.versions.c.model == model)
    return tuple(connection.scalars(mine.order_by(schema.versions.c.sequence)))


def create_endpoint(connection: Connection, model: str, version: str) -> None:
    """An endpoint of the model's name that sends everything to this version."""
    endpoint = Endpoint(model, model, ((version, ALL_TRAFFIC),))
    connection.execute(
        insert(schema.endpoints).values(name=endpoint.name, model=endpoint.model, revision=endpoint.revision)
    )
    _insert_weights(connection, endpoint)


def _insert_weights(connection: Connection, endpoint: Endpoint) -> None:
    rows = [
        {"endpoint": endpoint.name, "position": position, "model": endpoint.model, "version": version, "share": share}
        for position, (version, share) in enumerate(endpoint.weights)
    ]
    if rows:
        connection.execute(insert(schema.traffic), rows)


def _rows() -> Select[Any]:
    e, t = schema.endpoints.c, schema.traffic.c
    columns = select(e.name, e.model, e.revision, t.version, t.share)
    return columns.outerjoin(schema.traffic, t.endpoint == e.name).order_by(e.name, t.position)


def _endpoint(connection: Connection, name: str) -> Endpoint:
    found = _endpoints(connection.execute(_rows().where(schema.endpoints.c.name == name)))
    if not found:
        raise refusals.endpoint_not_found(name)
    return found[0]


def _endpoints(rows: Iterable[Row[Any]]) -> tuple[Endpoint, ...]:
    found: dict[str, Endpoint] = {}
    for row in rows:
        known = found.get(row.name) or Endpoint(row.name, row.model, (), row.revision)
        weights = known.weights if row.version is None else (*known.weights, (row.version, row.share))
        found[row.name] = msgspec.structs.replace(known, weights=weights)
    return tuple(found.values())
