"""`modelyard keys` and `modelyard me` on a folder: the words of the management routes."""

from __future__ import annotations

import pytest
from cli_support import Run, parsed
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.core.errors import ModelyardError


def refused(run: Run, code: str, *arguments: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, ModelyardError)
    assert error.code == code


def test_bounds_are_set_changed_and_taken_away(run: Run) -> None:
    """create and update: what is given is set, `none` takes away, the rest is kept; the list shows it."""
    made = parsed(run("keys", "create", "acme", "--quota", "10000/day", "--concurrency", "4", "--json"))
    assert (made["quota"], made["concurrency"], made["client_models"]) == ("10000/day", 4, ["*"])
    changed = parsed(run("keys", "update", made["id"], "--rate", "50/s", "--quota", "none", "--models", "tree*",
                         "--client-models", "tree*", "--client-models", "oak", "--json"))  # fmt: skip
    assert (changed["rate"], changed["quota"], changed["concurrency"]) == ("50/s", None, 4)
    assert (changed["models"], changed["client_models"]) == (["tree*"], ["tree*", "oak"])
    assert "50/s, 4 at once, only tree* oak" in run("keys", "list").stdout
    refused(run, "usage_invalid", "keys", "update", made["id"])
    refused(run, "rate_invalid", "keys", "update", made["id"], "--quota", "many")
    refused(run, "parameter_invalid", "keys", "update", made["id"], "--concurrency", "0")
    refused(run, "key_not_found", "keys", "update", "nobody", "--rate", "1/s")


def test_a_key_is_rotated(run: Run) -> None:
    """The new text once, the old key's end, both linked in the list; a second rotation is a conflict."""
    old = parsed(run("keys", "create", "acme", "--json"))
    new = parsed(run("keys", "rotate", old["id"], "--overlap", "2h", "--json"))
    assert new["key"] != old["key"]
    listed = {key["id"]: key for key in parsed(run("keys", "list", "--json"))["keys"]}
    assert listed[old["id"]]["replaced_by"] == new["id"]
    assert listed[old["id"]]["expires_at"] is not None
    assert listed[new["id"]]["replaces"] == old["id"]
    assert f"replaced by {new['id']}" in run("keys", "list").stdout
    refused(run, "key_not_active", "keys", "rotate", old["id"])
    assert "goes on for 24h" in run("keys", "rotate", new["id"]).stdout


def test_many_keys_are_revoked(run: Run) -> None:
    """--dry-run shows which; then they end; ids and options exclude each other."""
    ids = {parsed(run("keys", "create", "acme", "--json"))["id"] for _ in range(2)}
    other = parsed(run("keys", "create", "other", "--json"))["id"]
    dry = parsed(run("keys", "revoke", "--client", "acme", "--dry-run", "--json"))
    assert (dry["dry_run"], {key["id"] for key in dry["revoked"]}) == (True, ids)
    assert "2 keys would be revoked" in run("keys", "revoke", "--client", "acme", "--dry-run").stdout
    assert "2 keys are revoked" in run("keys", "revoke", "--client", "acme").stdout
    states = {key["id"]: key["state"] for key in parsed(run("keys", "list", "--json"))["keys"]}
    assert states == {**dict.fromkeys(ids, "revoked"), other: "active"}
    assert parsed(run("keys", "revoke", "--created-before", "2020-01-01", "--json"))["revoked"] == []
    assert parsed(run("keys", "list", "--unused-since", "90d", "--json"))["keys"] == []


@pytest.mark.parametrize(
    "arguments", [(), ("x", "--client", "acme"), ("x", "--dry-run"), ("--dry-run",)], ids=lambda a: " ".join(a)
)
def test_a_revocation_says_what_it_means(run: Run, arguments: tuple[str, ...]) -> None:
    """Neither an id nor an option, both, or a dry run of one key: usage."""
    refused(run, "usage_invalid", "keys", "revoke", *arguments)


def test_me_needs_a_server_and_a_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server on the folder it says so; without a key too."""
    refused(run, "server_not_running", "me", "--key", "k")
    monkeypatch.setenv("MODELYARD_SERVER", "http://127.0.0.1:1")
    error = CliRunner().invoke(app, ["me"]).exception
    assert isinstance(error, ModelyardError)
    assert error.code == "key_missing"
