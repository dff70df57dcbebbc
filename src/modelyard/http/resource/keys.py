"""What is asked of keys and clients, in the words of the routes and of the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import UNSET

from modelyard.auth.ports import ClientBounds, Key
from modelyard.auth.scopes import NO_BOUND, check_concurrency, parse_concurrency, parse_quota, parse_rate
from modelyard.auth.selection import KeySelection
from modelyard.http.forms.asking import parse_time
from modelyard.http.forms.views import Json, keys_view, one_key_view
from modelyard.http.services import Services

Given = Mapping[str, Any]
"""Fields that a caller gave, by name; one that is absent keeps what there is."""


def client_bounds(given: Given) -> ClientBounds:
    """`quota` (`10000/day`), `concurrency` (a number or its text) and `client_models`; None or `none` takes a bound
    away. InvalidRequestError."""
    return ClientBounds(
        quota_per_day=parse_quota(given["quota"] or NO_BOUND) if "quota" in given else UNSET,
        concurrency=_concurrency(given["concurrency"]) if "concurrency" in given else UNSET,
        models=tuple(given["client_models"]) if given.get("client_models") is not None else UNSET,
    )


def change_key(services: Services, key_id: str, given: Given) -> Key:
    """Changes a key's `models` and its client's `rate` and bounds; NotFoundError, InvalidRequestError."""
    return services.keys.update(
        key_id,
        models=UNSET if given.get("models") is None else given["models"],
        rate=None if given.get("rate") is None else parse_rate(given["rate"]),
        bounds=client_bounds(given),
    )


def key_selection(given: Mapping[str, str | None], now: float) -> KeySelection:
    """The keys of a `client`, `unused_since` a time (or for a duration), `created_before` a time; InvalidRequestError.
    Texts that are empty match all."""
    times = {
        name: parse_time(text, name, now) for name in ("unused_since", "created_before") if (text := given.get(name))
    }
    return KeySelection(client=given.get("client") or None, **times)


def selected_keys(services: Services, selection: KeySelection) -> list[Json]:
    """The keys that match, newest first, each with its last use."""
    snapshot, last_used = services.keys.list(), services.usage.last_uses()
    wanted = {key.id for key in selection.of(snapshot, last_used)}
    views = (view for view in keys_view(snapshot, services.clock.now(), last_used) if view["id"] in wanted)
    return sorted(views, key=newest_first)


def newest_first(view: Json) -> tuple[float, str]:
    """Where a key stands in a list."""
    return -datetime.fromisoformat(view["created_at"]).timestamp(), view["id"]


def revoke_selected(services: Services, selection: KeySelection, dry_run: bool, own: str | None = None) -> Json:
    """Ends the active keys that match, but for the caller's `own`, all in one change; with `dry_run` only says which
    these are."""
    snapshot, last_used = services.keys.list(), services.usage.last_uses()
    chosen = selection.to_revoke(snapshot, last_used, services.clock.now(), () if own is None else (own,))
    ids = {key.id for key in chosen}
    if not dry_run:
        ids = {key.id for key in services.keys.revoke_all(sorted(ids))}
    views = keys_view(services.keys.list(), services.clock.now(), last_used)
    return {"dry_run": dry_run, "revoked": [view for view in views if view["id"] in ids]}


def show_key(services: Services, key: Key) -> Json:
    """One key as it is now, with its last use."""
    return one_key_view(services.keys.list(), key, services.clock.now(), services.usage.last_uses())


def _concurrency(given: int | str | None) -> int | None:
    if given is None or isinstance(given, str):
        return parse_concurrency(given or NO_BOUND)
    return check_concurrency(given)
