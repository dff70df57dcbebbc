"""How versions, endpoints and keys look as JSON, over HTTP and on the command line alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from modelyard.auth.keys import IssuedKey
from modelyard.auth.ports import Client, Key, KeySnapshot
from modelyard.models.ports import Version
from modelyard.routing.ports import Endpoint

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))

Json = dict[str, Any]


def time_text(at: float | None) -> str | None:
    """UNIX seconds as RFC 3339, UTC, whole seconds or microseconds."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def rate_text(count: int, period_s: float) -> str:
    """The rate as `parse_rate` reads it."""
    for seconds, unit in _UNITS:
        periods, rest = divmod(period_s, seconds)
        if rest == 0 and periods >= 1:
            return f"{count}/{'' if periods == 1 else int(periods)}{unit}"
    return f"{count}/{period_s:g}s"


def version_summary(version: Version) -> Json:
    """One line of a list of versions."""
    manifest = version.manifest
    return {
        "model": version.model,
        "version": version.version,
        "format": manifest.format,
        "size_bytes": sum(file.size_bytes for file in manifest.files),
        "digest": version.digest,
        "created_at": time_text(version.created_at),
    }


def version_view(version: Version, trusted: Collection[str] = ()) -> Json:
    """All that is known of a version; `trusted` are the ids of the keys whose signatures count here."""
    manifest: Json = msgspec.to_builtins(version.manifest)
    named = ("entry", "files", "signature", "example", "metrics", "provenance", "limits", "redaction")
    return (
        version_summary(version)
        | {name: manifest[name] for name in named}
        | {"signing": _signing(manifest, trusted, version.created_at)}
    )


def _signing(manifest: Json, trusted: Collection[str], published_at: float) -> Json:
    """Who signed, how, whether that counts, and when it was checked first; every load checks it again."""
    signer, authority = manifest.get("signer"), manifest.get("signing_authority")
    return {
        "signer": signer,
        "trusted": signer in trusted or authority in trusted,
        "method": None if signer is None else manifest.get("signing_method", "ed25519"),
        "authority": authority,
        "checked_at": None if signer is None else time_text(published_at),
    }


def model_summary(
    name: str,
    versions: Sequence[Version],
    endpoints: Iterable[Endpoint],
    unhealthy: Collection[tuple[str, str]] | None = None,
) -> Json:
    """One line of a list of models; `traffic` is that of the endpoint with the model's name, `unhealthy`, where
    that is known, names the versions that are not loaded because workers died in their runs."""
    own = next((endpoint for endpoint in endpoints if endpoint.name == name), None)
    ill = [known.version for known in versions if (name, known.version) in (unhealthy or ())]
    return {
        "name": name,
        "versions": [version.version for version in versions],
        "latest": versions[-1].version,
        "format": versions[-1].manifest.format,
        "traffic": dict(own.weights) if own else {},
        **({} if unhealthy is None else {"unhealthy": ill}),
        "created_at": time_text(versions[0].created_at),
    }


def model_summaries(
    versions: Iterable[Version], endpoints: Sequence[Endpoint], unhealthy: Collection[tuple[str, str]] | None = None
) -> list[Json]:
    """All models, by name."""
    by_model: dict[str, list[Version]] = {}
    for version in versions:
        by_model.setdefault(version.model, []).append(version)
    return [model_summary(name, by_model[name], endpoints, unhealthy) for name in sorted(by_model)]


def model_view(
    name: str,
    versions: Sequence[Version],
    endpoints: Sequence[Endpoint],
    unhealthy: Collection[tuple[str, str]] | None = None,
) -> Json:
    """One model with the summaries of its versions and the endpoints that serve it."""
    return model_summary(name, versions, endpoints, unhealthy) | {
        "versions": [version_summary(version) for version in versions],
        "endpoints": [endpoint_view(endpoint) for endpoint in endpoints if endpoint.model == name],
    }


def endpoint_view(endpoint: Endpoint) -> Json:
    """One endpoint and the shares of its versions in percent."""
    return {
        "name": endpoint.name,
        "model": endpoint.model,
        "weights": dict(endpoint.weights),
        "revision": endpoint.revision,
    }


def key_view(key: Key, client: Client | None, now: float) -> Json:
    """One key, without anything that could be presented; the bounds are its client's."""
    return {
        "id": key.id,
        "client": client.name if client else key.client_id,
        "scopes": list(key.scopes),
        "models": list(key.models),
        "rate": rate_text(client.rate_count, client.rate_period_s) if client else None,
        "quota": quota_text(client.quota_per_day) if client else None,
        "concurrency": client.concurrency if client else None,
        "client_models": list(client.models) if client else ["*"],
        "created_at": time_text(key.created_at),
        "expires_at": time_text(key.expires_at),
        "revoked_at": time_text(key.revoked_at),
        "state": key_state(key, now),
        "replaces": key.replaces,
        "replaced_by": None,
        "last_used_at": None,
    }


def quota_text(per_day: int | None) -> str | None:
    """The quota as `parse_quota` reads it."""
    return None if per_day is None else f"{per_day}/day"


def key_state(key: Key, now: float) -> str:
    """`active`, `expired` or `revoked` at UNIX time `now`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def keys_view(snapshot: KeySnapshot, now: float, last_used: Mapping[str, float] | None = None) -> list[Json]:
    """All keys, newest first, each linked with those that it replaces and that replace it; `last_used` by key id."""
    clients = {client.id: client for client in snapshot.clients}
    # Of several successors (an earlier one was revoked) the last one made counts.
    ordered = sorted(snapshot.keys, key=lambda key: (key.created_at, key.id))
    successors = {key.replaces: key.id for key in ordered if key.replaces is not None}
    return [
        key_view(key, clients.get(key.client_id), now)
        | {"replaced_by": successors.get(key.id), "last_used_at": time_text((last_used or {}).get(key.id))}
        for key in reversed(ordered)
    ]


def one_key_view(snapshot: KeySnapshot, key: Key, now: float, last_used: Mapping[str, float] | None = None) -> Json:
    """One key of the snapshot."""
    return next(view for view in keys_view(snapshot, now, last_used) if view["id"] == key.id)


def issued_view(issued: IssuedKey, now: float) -> Json:
    """A key just issued; `key` is shown this once."""
    view = key_view(issued.key, issued.client, now)
    return {"id": view["id"], "key": issued.text.get_secret_value()} | view
