"""Pages and entity tags: every list and every editable resource, as callers use them."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from test_management import refused
from yard_support import Yard

from modelyard.testing import version

TRAFFIC = "/v1/endpoints/tree/traffic"
LISTS = {
    "/v1/models": "models",
    "/v1/endpoints": "endpoints",
    "/v1/models/tree/versions": "versions",
    "/v1/keys": "keys",
}
"""Path and field of each list."""
ALIEN = base64.urlsafe_b64encode(json.dumps(["other", "tree"]).encode()).decode()
HOSTILE_CURSORS = (
    "x", "!!", "%00", "é", "a" * 513, "W10", "bnVsbA", ALIEN, "'; DROP TABLE keys; --", "../../etc/passwd",
    base64.urlsafe_b64encode(b'["models", {"a": 1}]').decode(), base64.urlsafe_b64encode(b'["models", 1, []]').decode(),
    base64.urlsafe_b64encode(b'["models", 1.5]').decode(), base64.urlsafe_b64encode(b"[" * 300).decode(),
)  # fmt: skip


def grow(yard: Yard) -> None:
    """Twenty models and twenty more versions of one."""
    for number in range(20):
        yard.stores.registry.add_version(version(f"m{number:02}", "1", b"%d" % number))
        yard.stores.registry.add_version(version("tree", f"v{number:02}", b"v%d" % number))
        yard.services.keys.create(f"client-{number % 7}")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 3, 7, 20, 1000])
def test_pages_together_are_the_list(yard: Yard, path: str, limit: int) -> None:
    """Whatever the limit: each element once, in the order of the whole, and `Link` leads where `next_cursor` does."""
    grow(yard)
    name = LISTS[path]
    whole = yard.ask("GET", f"{path}?limit=1000").json()[name]
    assert len(whole) >= 21
    shown, query = [], f"limit={limit}"
    while True:
        reply = yard.ask("GET", f"{path}?{query}")
        page = reply.json()
        assert len(page[name]) <= limit
        shown += page[name]
        if page["next_cursor"] is None:
            assert "link" not in reply.headers
            break
        link, relation = reply.headers["link"].split("; ")
        assert relation == 'rel="next"'
        query = link.removeprefix("<?").removesuffix(">")
        assert query == f"limit={limit}&cursor={quote(page['next_cursor'])}"
    assert shown == whole


def test_a_page_is_not_moved_by_what_comes_before_it(yard: Yard) -> None:
    """A model that is published between two pages repeats and hides nothing."""
    grow(yard)
    first = yard.ask("GET", "/v1/models?limit=5").json()
    yard.stores.registry.add_version(version("aaa", "1"))
    second = yard.ask("GET", f"/v1/models?limit=5&cursor={first['next_cursor']}").json()
    names = [model["name"] for model in (*first["models"], *second["models"])]
    assert names == [f"m{number:02}" for number in range(10)]


@pytest.mark.parametrize("path", LISTS)
def test_a_hostile_cursor_is_refused(yard: Yard, path: str) -> None:
    """What no page gave is 400, never a page and never a 500."""
    for cursor in HOSTILE_CURSORS:
        code = "parameter_invalid" if len(cursor) > 512 else "cursor_invalid"
        refused(yard.ask("GET", f"{path}?cursor={quote(cursor)}"), 400, code, "cursor")
    for limit in ("0", "-1", "1001", "1e3", "x", "", "9" * 30):
        assert yard.ask("GET", f"{path}?limit={limit}").status == 400


def test_parameters_are_declared_and_given_once(yard: Yard) -> None:
    """A mistyped or repeated parameter is named, on every strict route, also where the route reads none."""
    refused(yard.ask("GET", "/v1/models?limti=5"), 400, "field_unknown", "limti")
    refused(yard.ask("GET", "/v1/models/tree?version=1"), 400, "field_unknown", "version")
    refused(yard.ask("GET", "/v1/models?limit=5&limit=6"), 400, "parameter_invalid", "limit")
    refused(yard.ask("PUT", f"{TRAFFIC}?x=1", {"weights": {"1": 100}}), 400, "field_unknown", "x")
    assert yard.ask("GET", "/v2/health/ready?check=lb", scope="none").status == 200


@pytest.mark.parametrize("path", [TRAFFIC, "/v1/models/tree", "/v1/models/tree/versions/1"])
def test_a_resource_says_which_it_is(yard: Yard, path: str) -> None:
    """Each answer has a strong tag; the same state has the same; `If-None-Match` spares the body."""
    reply = yard.ask("GET", path)
    tag = reply.headers["etag"]
    assert tag.startswith('"')
    assert yard.ask("GET", path).headers["etag"] == tag
    for said in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        again = yard.ask("GET", path, if_none_match=said)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert yard.ask("GET", path, if_none_match='"x"').status == 200


def test_the_tag_changes_with_what_is_shown(yard: Yard) -> None:
    """A version more is another model; another traffic is another endpoint and another model."""
    before = {path: yard.ask("GET", path).headers["etag"] for path in ("/v1/models/tree", TRAFFIC)}
    yard.ask("PUT", TRAFFIC, {"weights": {"2": 100}})
    between = {path: yard.ask("GET", path).headers["etag"] for path in before}
    assert all(before[path] != between[path] for path in before)
    yard.stores.registry.add_version(version("tree", "3", b"3"))
    assert yard.ask("GET", "/v1/models/tree").headers["etag"] != between["/v1/models/tree"]


def test_a_stale_change_is_refused(yard: Yard) -> None:
    """Two operators look, both change: the second is told (D8), and nothing of it stays. Without `If-Match` the last
    one wins, as PUT says."""
    seen = yard.ask("GET", TRAFFIC).headers["etag"]
    first = yard.ask("PUT", TRAFFIC, {"weights": {"2": 100}}, if_match=seen)
    assert first.status == 200
    detail = refused(yard.ask("PUT", TRAFFIC, {"weights": {"1": 100}}, if_match=seen), 412, "etag_stale", "if-match")
    assert detail["expected"] == first.headers["etag"] == yard.ask("GET", TRAFFIC).headers["etag"]
    assert yard.ask("GET", TRAFFIC).json()["weights"] == {"2": 100}
    for said in (f"W/{first.headers['etag']}", '"none"'):
        refused(yard.ask("PUT", TRAFFIC, {"weights": {"1": 100}}, if_match=said), 412, "etag_stale")
    for said in ("2", "", "'2'", '"2', '"2" "3"', "*, *"):
        refused(yard.ask("PUT", TRAFFIC, {"weights": {"1": 100}}, if_match=said), 400, "parameter_invalid", "if-match")
    assert yard.ask("PUT", TRAFFIC, {"weights": {"1": 100}}, if_match="*").status == 200
    assert yard.ask("PUT", TRAFFIC, {"weights": {"2": 100}}).status == 200


def test_a_change_between_look_and_write_is_a_conflict(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag was right when it was compared and is not when it is written: 409, the other change stands (D8)."""
    store = yard.stores.endpoints
    write = store.set_traffic

    def late(name: str, weights: tuple[tuple[str, int], ...], revision: int | None = None, **more: object) -> object:
        write(name, (("2", 100),))
        return write(name, weights, revision, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "set_traffic", late)
    seen = yard.ask("GET", TRAFFIC).headers["etag"]
    reply = yard.ask("PUT", TRAFFIC, {"weights": {"1": 100}}, if_match=seen)
    refused(reply, 409, "edit_conflict", "revision")
    assert yard.ask("GET", TRAFFIC).json()["weights"] == {"2": 100}


def test_a_key_is_ended_as_it_was_seen(yard: Yard) -> None:
    """A key that was revoked meanwhile is another one: 412; with its own tag, and twice, it ends."""
    id = yard.ask("POST", "/v1/keys", {"client": "acme"}).json()["id"]
    seen = yard.ask("GET", f"/v1/keys/{id}").headers["etag"]
    refused(yard.ask("DELETE", f"/v1/keys/{id}", if_match='"x"'), 412, "etag_stale", "if-match")
    ended = yard.ask("DELETE", f"/v1/keys/{id}", if_match=seen)
    assert (ended.status, ended.json()["state"]) == (200, "revoked")
    refused(yard.ask("DELETE", f"/v1/keys/{id}", if_match=seen), 412, "etag_stale")
    now = yard.ask("GET", f"/v1/keys/{id}").headers["etag"]
    assert yard.ask("DELETE", f"/v1/keys/{id}", if_match=now).status == 200
    refused(yard.ask("GET", "/v1/keys/none"), 404, "key_not_found")


def test_a_version_has_nothing_to_match(yard: Yard) -> None:
    """Versions are immutable: `If-Match` on a publish is refused, not ignored."""
    reply = yard.ask("PUT", "/v1/models/tree/versions/9", b"x", if_match='"1"')
    refused(reply, 400, "parameter_invalid", "if-match")
    assert yard.publisher.seen == []
