"""Keys and limits, on every worker."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping

import trained
from server import RunningServer, command, until

PATH = "/v2/models/cancer/infer"
BODY = json.dumps(trained.infer_body(X=trained.cancer().rows[:1])).encode()


def status(connection: http.client.HTTPConnection, key: str, path: str = PATH) -> int:
    connection.request("POST", path, BODY, {"x-api-key": key})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def statuses(connections: Mapping[int, http.client.HTTPConnection], key: str) -> set[int]:
    return {status(connection, key) for connection in connections.values()}


def test_a_key_lives_on_every_worker(server: RunningServer) -> None:
    """A key works on every worker once it is issued, and on none within a second of its revocation; also over
    connections that were open before. Revoking again changes nothing."""
    with server.every_worker() as connections:
        made = server.create_key("short-lived")
        assert statuses(connections, made["key"]) == {200}
        begun = time.monotonic()
        revoked = server.ask("DELETE", f"/v1/keys/{made['id']}")
        assert (revoked.status, revoked.json["state"]) == (200, "revoked")
        until(lambda: statuses(connections, made["key"]) == {401}, what="the revocation")
        assert time.monotonic() - begun < 1.0
        assert server.ask("DELETE", f"/v1/keys/{made['id']}").json["revoked_at"] == revoked.json["revoked_at"]


def test_the_command_revokes_on_the_folder(server: RunningServer) -> None:
    """`keys create` and `keys revoke` on the folder of a running server reach its workers within a second."""
    made = json.loads(command("keys", "create", "by-command", "--data", server.data, "--json").stdout)
    server.secrets.add(made["key"])
    with server.every_worker() as connections:
        until(lambda: statuses(connections, made["key"]) == {200}, 1.0, "the new key")
        assert command("keys", "revoke", made["id"], "--data", server.data).returncode == 0
        until(lambda: statuses(connections, made["key"]) == {401}, 1.0, "the revocation")
        listed = json.loads(command("keys", "list", "--server", server.url, "--key", server.key, "--json").stdout)
        assert {key["id"]: key["state"] for key in listed["keys"]}[made["id"]] == "revoked"
        assert made["key"] not in json.dumps(listed)


def test_models_of_a_key(server: RunningServer) -> None:
    """A key for `dig*` may not use, or learn of, another model."""
    key = server.create_key("digits-only", models=["dig*"])["key"]
    assert server.ask("GET", "/v2/models/digits", key=key).status == 200
    for method, path in (("POST", PATH), ("GET", "/v2/models/cancer"), ("GET", "/v2/models/no-such-model")):
        reply = server.ask(method, path, BODY if method == "POST" else None, key=key)
        assert (reply.status, reply.json["code"]) == (403, "model_not_allowed")


def test_rate_is_one_for_all_workers(server: RunningServer) -> None:
    """A client with 10 requests a minute gets 10 over all workers, then 429 in our form with Retry-After and
    RateLimit-*; the other client is not limited. Refusals of the management routes count and tell the same."""
    key = server.create_key("slow-client", rate="10/m")["key"]
    with server.every_worker() as connections:
        seen = [status(connection, key) for _ in range(10) for connection in connections.values()]
        assert (seen.count(200), seen.count(429)) == (10, 10)
        for method, path in (("POST", PATH), ("GET", "/v2/models/cancer")):
            reply = server.ask(method, path, BODY if method == "POST" else None, key=key)
            assert (reply.status, reply.json["code"]) == (429, "rate_limited")
            assert 1 <= int(reply.headers["retry-after"]) <= 6
            assert reply.headers["ratelimit-limit"] == "10"
            assert reply.headers["ratelimit-remaining"] == "0"
            assert 1 <= int(reply.headers["ratelimit-reset"]) <= 60
            assert set(reply.json) == {"error", "code", "detail", "request_id"}
        assert statuses(connections, server.create_key("other-client")["key"]) == {200}


def test_two_keys_of_one_client_share_its_rate(server: RunningServer) -> None:
    """The limit is the client's, not the key's."""
    keys = [server.create_key("shared-rate", rate="6/m")["key"] for _ in range(2)]
    seen = [server.ask("POST", PATH, BODY, key=key).status for _ in range(6) for key in keys]
    assert (seen.count(200), seen.count(429)) == (6, 6)


def test_expiry(server: RunningServer) -> None:
    """A key ends when it said it would."""
    key = server.create_key("brief", expires="3s")["key"]
    assert server.ask("POST", PATH, BODY, key=key).status == 200
    until(lambda: server.ask("POST", PATH, BODY, key=key).status == 401, 6.0, "the expiry")
    assert server.ask("POST", PATH, BODY, key=key).json["code"] == "key_expired"


def test_bearer(server: RunningServer, client_key: str) -> None:
    """`Authorization: Bearer` is as good as `x-api-key`; two that differ are refused."""
    bearer = {"authorization": f"Bearer {client_key}"}
    assert server.ask("POST", PATH, BODY, key=None, headers=bearer).status == 200
    both = server.ask("POST", PATH, BODY, key=server.key, headers=bearer)
    assert (both.status, both.json["code"]) == (400, "keys_differ")


def test_rotation_and_bulk_revocation_reach_every_worker(server: RunningServer) -> None:
    """The successor works on every worker at once, the old key until its overlap ends, then on none; all keys of a
    client end together, within a second, also by the command with `--server`."""
    remote = ("--server", server.url, "--key", server.key, "--json")
    old = server.create_key("rotating")
    with server.every_worker() as connections:
        new = json.loads(command("keys", "rotate", old["id"], "--overlap", "4s", *remote).stdout)
        server.secrets.add(new["key"])
        assert statuses(connections, new["key"]) == {200}
        assert statuses(connections, old["key"]) == {200}
        until(lambda: statuses(connections, old["key"]) == {401}, 10.0, "the end of the overlap")
        dry = json.loads(command("keys", "revoke", "--client", "rotating", "--dry-run", *remote).stdout)
        assert [key["id"] for key in dry["revoked"]] == [new["id"]]
        assert statuses(connections, new["key"]) == {200}
        assert server.ask("DELETE", "/v1/clients/rotating/keys").status == 200
        until(lambda: statuses(connections, new["key"]) == {401}, 1.0, "the revocation")


def test_a_change_of_models_reaches_every_worker(server: RunningServer) -> None:
    """PATCH: the key's and the client's models count on every worker within a second; `me` tells them."""
    made = server.create_key("changing", rate="500/s")
    with server.every_worker() as connections:
        assert statuses(connections, made["key"]) == {200}
        changed = server.ask("PATCH", f"/v1/keys/{made['id']}", {"client_models": ["dig*"], "rate": "400/s"})
        assert changed.status == 200
        until(lambda: statuses(connections, made["key"]) == {403}, 1.0, "the client's models")
        said = json.loads(command("me", "--server", server.url, "--key", made["key"], "--json").stdout)
        assert (said["client"], said["key"]["models"], said["limits"]["rate"]) == ("changing", ["dig*"], "400/s")
        assert said["left"]["rate"] == 399
