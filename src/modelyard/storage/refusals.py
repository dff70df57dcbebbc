"""The refusals that every kind of store words alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelyard.auth.ports import Key, is_active
from modelyard.core.errors import ConflictError, NotFoundError, UnavailableError
from modelyard.core.lease import Fence


def key_not_found(key_id: str) -> NotFoundError:
    """No key has this id."""
    return NotFoundError("key_not_found", f"There is no key `{key_id}`.", field="key", got=key_id)


def hold_not_found(hold_id: str) -> NotFoundError:
    """No hold in force has this id."""
    return NotFoundError("hold_not_found", f"There is no hold `{hold_id}`.", field="hold", got=hold_id)


def lease_lost(fence: Fence) -> ConflictError:
    """Another process has the lease now."""
    return ConflictError(
        "lease_lost",
        f"Another process took over the lease `{fence.name}`; nothing was done.",
        field="lease",
        expected="the latest token",
        got=fence.token,
    )


def check_replaceable(key: Key, keys: Iterable[Key]) -> Key:
    """The key that this new one replaces, if it may: it is active, and no active key replaces it already.
    NotFoundError("key_not_found"), ConflictError("key_not_active")."""
    old: Key | None = None
    for other in keys:
        if other.id == key.replaces:
            old = other
        elif other.replaces == key.replaces and is_active(other, key.created_at):
            raise _not_active(key, f"was rotated already: `{other.id}` replaces it")
    if old is None:
        raise key_not_found(str(key.replaces))
    if not is_active(old, key.created_at):
        raise _not_active(key, "is revoked" if old.revoked_at is not None else "has expired")
    return old


def _not_active(key: Key, why: str) -> ConflictError:
    return ConflictError(
        "key_not_active",
        f"The key `{key.replaces}` {why}.",
        field="key",
        expected="an active key without a successor",
        got=key.replaces,
    )


def no_slot_left(max_clients: int) -> UnavailableError:
    """The table of shared limits is full."""
    return UnavailableError(
        "store_unavailable",
        f"There is no room for another client: {max_clients} is the most.",
        field="limits.max_clients",
        expected=f"at most {max_clients} clients",
    )


def model_not_found(model: str) -> NotFoundError:
    """No version was ever published under this name."""
    return NotFoundError("model_not_found", f"There is no model `{model}`.", field="model", got=model)


def version_not_found(model: str, version: str, known: Sequence[str]) -> NotFoundError:
    """The model is known, this version of it is not."""
    return NotFoundError(
        "version_not_found",
        f"The model `{model}` has no version `{version}`.",
        field="version",
        expected=list(known)[-20:],
        got=version,
    )


def version_exists(model: str, version: str) -> ConflictError:
    """Versions are immutable: other content needs another name."""
    return ConflictError(
        "version_exists",
        f"The version `{version}` of `{model}` is there already, with other content.",
        field="version",
        expected="a version that is not taken",
        got=version,
    )


def edit_conflict(name: str, expected: int, got: int) -> ConflictError:
    """Somebody else changed the endpoint between the look and the change."""
    return ConflictError(
        "edit_conflict",
        f"The traffic of `{name}` was changed meanwhile; look at it again.",
        field="revision",
        expected=got,
        got=expected,
    )


def endpoint_not_found(name: str) -> NotFoundError:
    """No endpoint has this name."""
    return NotFoundError("endpoint_not_found", f"There is no endpoint `{name}`.", field="endpoint", got=name)


def artifact_not_found(digest: str) -> NotFoundError:
    """The files of this digest are not here."""
    return NotFoundError(
        "version_not_found", f"The files of version content `{digest[:12]}` are not in the store.", got=digest
    )


def prediction_not_found(prediction_id: str) -> NotFoundError:
    """No record has this id, or not yet: the drain may be a moment behind."""
    return NotFoundError(
        "prediction_not_found", f"There is no prediction `{prediction_id}`.", field="id", got=prediction_id[:128]
    )
