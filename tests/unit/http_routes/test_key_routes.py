"""The routes of keys and clients, over the public fakes."""

from __future__ import annotations

from typing import Any

import pytest
from asgi import Reply, call
from yard_support import Yard

from modelyard.http.routes.me import Rest

DAY_S = 86_400.0


def made(yard: Yard, client: str = "acme", **asked: Any) -> dict[str, Any]:
    reply = yard.ask("POST", "/v1/keys", {"client": client, **asked})
    assert reply.status == 201, reply.body
    found: dict[str, Any] = reply.json()
    return found


def listed(yard: Yard, query: str = "") -> dict[str, dict[str, Any]]:
    reply = yard.ask("GET", f"/v1/keys{query}")
    assert reply.status == 200, reply.body
    return {key["id"]: key for key in reply.json()["keys"]}


def refused(reply: Reply, status: int, code: str, field: str) -> None:
    said = reply.json()
    assert (reply.status, said["code"], said["detail"].get("field")) == (status, code, field)


def test_bounds_are_set_at_the_making_and_shown(yard: Yard) -> None:
    """Quota, concurrency and the client's models: as they were written; another key of the client has them too."""
    key = made(yard, quota="10000/day", concurrency=4, client_models=["tree*"], rate="5/s")
    assert (key["quota"], key["concurrency"], key["client_models"], key["rate"]) == ("10000/day", 4, ["tree*"], "5/s")
    assert made(yard)["quota"] == "10000/day"
    assert made(yard, "other")["quota"] is None


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        ({"quota": "0/day"}, "rate_invalid", "quota"),
        ({"quota": "5/s"}, "rate_invalid", "quota"),
        ({"concurrency": 0}, "parameter_invalid", "concurrency"),
        ({"concurrency": "4"}, "field_type", "concurrency"),
        ({"client_models": ["a b"]}, "parameter_invalid", "models"),
        ({"rate": "fast"}, "rate_invalid", "rate"),
        ({"scopes": ["admin"]}, "field_unknown", "scopes"),
    ],
)
def test_wrong_changes_are_refused_whole(yard: Yard, asked: dict[str, Any], code: str, field: str) -> None:
    """Each is named, and nothing changes, not even what was right beside it."""
    key = made(yard)
    before = yard.stores.keys.snapshot()
    refused(yard.ask("PATCH", f"/v1/keys/{key['id']}", {"models": ["oak"], **asked}), 400, code, field)
    assert yard.stores.keys.snapshot() == before


def test_a_change_keeps_what_is_absent_and_null_takes_away(yard: Yard) -> None:
    """PATCH: key and client change together; absent fields stay; null ends a bound; the ETag guards against a stale
    edit, and a use of the key is no edit."""
    key = made(yard, quota="10/day", concurrency=4)
    path = f"/v1/keys/{key['id']}"
    tag = yard.ask("GET", path).headers["etag"]
    yard.stores.usage.record_uses({key["id"]: yard.clock.now()})
    changed = yard.ask("PATCH", path, {"models": ["oak"], "rate": "7/m", "quota": None}, if_match=tag)
    assert changed.status == 200, changed.body
    said = changed.json()
    assert (said["models"], said["rate"], said["quota"], said["concurrency"]) == (["oak"], "7/m", None, 4)
    stale = yard.ask("PATCH", path, {"rate": "8/m"}, if_match=tag)
    assert (stale.status, stale.json()["code"]) == (412, "etag_stale")
    assert yard.ask("PATCH", path, {"rate": "8/m"}, if_match=changed.headers["etag"]).json()["rate"] == "8/m"
    refused(yard.ask("PATCH", "/v1/keys/nobody", {"rate": "8/m"}), 404, "key_not_found", "key")


def test_the_clients_models_bound_every_key(yard: Yard) -> None:
    """A key that may use every model, of a client that may not: only the client's; it is no key for all models."""
    key = made(yard, scopes=["admin", "predict"], client_models=["oak*"])["key"]
    assert call(yard.app, "GET", "/v2/models/tree", key=key).status == 403
    assert call(yard.app, "GET", "/v1/keys", key=key).status == 403
    assert call(yard.app, "GET", "/v1/models", key=key).json()["models"] == []


def test_rotation_overlaps_and_ends_by_itself(yard: Yard) -> None:
    """The new text is shown once; both work until the overlap ends, then the old one has expired; the list links
    them; scopes, models, client and slot are the same."""
    old = made(yard, models=["tree*"], expires="30d")
    reply = yard.ask("POST", f"/v1/keys/{old['id']}/rotation", {"overlap": "2h"})
    assert (reply.status, reply.headers["cache-control"]) == (201, "no-store")
    new = reply.json()
    keys = listed(yard)
    assert (keys[old["id"]]["replaced_by"], keys[new["id"]]["replaces"]) == (new["id"], old["id"])
    assert new["key"].encode() not in yard.ask("GET", "/v1/keys").body
    assert {name: new[name] for name in ("client", "scopes", "models", "rate")} == {
        name: old[name] for name in ("client", "scopes", "models", "rate")
    }

    def statuses() -> list[int]:
        return [call(yard.app, "GET", "/v2/models/tree", key=key["key"]).status for key in (old, new)]

    assert statuses() == [200, 200]
    yard.clock.advance(7199)
    assert statuses() == [200, 200]
    yard.clock.advance(1)
    assert statuses() == [401, 200]
    assert listed(yard)[old["id"]]["state"] == "expired"
    refused(yard.ask("POST", f"/v1/keys/{old['id']}/rotation"), 409, "key_not_active", "key")
    yard.clock.advance(30 * DAY_S - 7201)
    assert statuses() == [401, 200], "the new key lives as long as the old one would have"
    yard.clock.advance(1)
    assert statuses() == [401, 401]


def test_rotation_without_a_body_takes_a_day(yard: Yard) -> None:
    """24 h unless the caller says otherwise; a wrong overlap is named; a second rotation of the same key is refused
    while its successor lives."""
    old = made(yard)
    path = f"/v1/keys/{old['id']}/rotation"
    refused(yard.ask("POST", path, {"overlap": "soon"}), 400, "parameter_invalid", "overlap")
    assert yard.ask("POST", path).status == 201
    ends = {key.id: key.expires_at for key in yard.stores.keys.snapshot().keys}[old["id"]]
    assert ends == yard.clock.now() + DAY_S
    refused(yard.ask("POST", path), 409, "key_not_active", "key")
    refused(yard.ask("POST", "/v1/keys/nobody/rotation"), 404, "key_not_found", "key")


def test_clocks_that_jump_do_no_harm_to_a_rotation(yard: Yard) -> None:
    """F11: the wall clock a day ahead and back again: the old key works as before, nothing was written down."""
    old = made(yard)
    assert yard.ask("POST", f"/v1/keys/{old['id']}/rotation", {"overlap": "2h"}).status == 201
    before, now = yard.stores.keys.snapshot(), yard.clock.now()
    yard.clock.jump_to(now + DAY_S)
    assert call(yard.app, "GET", "/v2/models/tree", key=old["key"]).status == 401
    yard.clock.jump_to(now - DAY_S)
    assert call(yard.app, "GET", "/v2/models/tree", key=old["key"]).status == 200
    yard.clock.jump_to(now)
    assert call(yard.app, "GET", "/v2/models/tree", key=old["key"]).status == 200
    assert yard.stores.keys.snapshot() == before


def test_all_keys_of_a_client_end_at_once(yard: Yard) -> None:
    """A dry run says which and changes nothing; then they end, in one change; another client's live on."""
    ids = {made(yard)["id"] for _ in range(3)}
    other = made(yard, "other")["id"]
    before = yard.stores.keys.snapshot()
    dry = yard.ask("DELETE", "/v1/clients/acme/keys?dry_run=true").json()
    assert (dry["dry_run"], {key["id"] for key in dry["revoked"]}) == (True, ids)
    assert yard.stores.keys.snapshot() == before
    said = yard.ask("DELETE", "/v1/clients/acme/keys").json()
    assert {key["id"]: key["state"] for key in said["revoked"]} == dict.fromkeys(ids, "revoked")
    assert yard.stores.keys.version() == before.version + 1
    assert listed(yard)[other]["state"] == "active"
    assert yard.ask("DELETE", "/v1/clients/acme/keys").json()["revoked"] == []
    assert yard.ask("DELETE", "/v1/clients/nobody/keys").json()["revoked"] == []


def test_keys_end_by_age_and_by_disuse(yard: Yard) -> None:
    """Unused for 90 days, counted from the last use or the making; made before; both together narrow. The caller's
    own key lives on; without anything that narrows nothing is revoked."""
    idle, busy = made(yard)["id"], made(yard)["id"]
    yard.clock.advance(80 * DAY_S)
    yard.stores.usage.record_uses({busy: yard.clock.now()})
    yard.clock.advance(11 * DAY_S)
    young = made(yard)["id"]
    assert set(listed(yard, "?client=acme&unused_since=90d")) == {idle}
    assert set(listed(yard, "?client=acme&created_before=1d")) == {idle, busy}
    refused(yard.ask("POST", "/v1/keys/revocations", {}), 400, "field_missing", "client")
    refused(yard.ask("POST", "/v1/keys/revocations", {"unused_since": "old"}), 400, "parameter_invalid", "unused_since")

    def ended(**asked: Any) -> set[str]:
        said = yard.ask("POST", "/v1/keys/revocations", {"client": "acme", **asked}).json()
        return {key["id"] for key in said["revoked"]}

    assert ended(unused_since="90d", dry_run=True) == ended(unused_since="90d") == {idle}
    assert ended(created_before="1d", unused_since="5d") == {busy}
    assert listed(yard)[young]["state"] == "active"
    own = {key["id"] for key in yard.ask("POST", "/v1/keys/revocations", {"created_before": "1s"}).json()["revoked"]}
    assert young not in own
    assert yard.ask("GET", "/v1/keys").status == 200, "the caller's own key lives on"


def test_the_list_goes_on_where_it_was(yard: Yard) -> None:
    """Newest first, in pages that show every key once, with when it was last used."""
    for number in range(7):
        yard.clock.advance(number % 2)
        made(yard, f"client{number}")
    yard.stores.usage.record_uses({key.id: yard.clock.now() for key in yard.stores.keys.snapshot().keys[:1]})
    whole = list(listed(yard).values())
    assert [key["created_at"] for key in whole] == sorted((key["created_at"] for key in whole), reverse=True)
    assert sum(key["last_used_at"] is not None for key in whole) == 1
    found, query = [], "?limit=3"
    while True:
        page = yard.ask("GET", f"/v1/keys{query}").json()
        found += page["keys"]
        if page["next_cursor"] is None:
            break
        query = f"?limit=3&cursor={page['next_cursor']}"
    assert found == whole


def test_me_tells_a_client_where_it_stands(yard: Yard) -> None:
    """Client, key, scopes, models, limits, and what is left as the worker knows it; other scopes may not ask."""
    key = made(yard, quota="10/day", concurrency=4, rate="5/10s", models=["tree*"], expires="1d")
    yard.app.state.standing = lambda principal: Rest(3, 60.5, 2)
    said = call(yard.app, "GET", "/v1/me", key=key["key"]).json()
    assert said == {
        "client": "acme",
        "key": {"id": key["id"], "scopes": ["predict"], "models": ["tree*"], "expires_at": key["expires_at"]},
        "limits": {"rate": "5/10s", "burst": 5, "quota": "10/day", "concurrency": 4},
        "left": {"rate": None, "rate_reset_s": None, "quota": 3, "quota_reset_s": 60.5, "concurrency": 2},
    }
    refused(yard.ask("GET", "/v1/me", scope="audit"), 403, "scope_missing", "scope")
    refused(yard.ask("GET", "/v1/me", scope="none"), 401, "key_missing", "x-api-key")
