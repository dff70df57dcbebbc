"""`modelyard me`: where the holder of a key stands."""

from __future__ import annotations

from typing import Any

from modelyard.cli.backends import needed_key, running_server
from modelyard.cli.backends.remote import RemoteBackend
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import moment, print_facts, print_json


def me_command(data: Data = None, server: Server = None, key: KeyText = None, as_json: AsJson = False) -> None:
    """Show whose a key is, what it may do, and what is left of its limits.

    Example: `modelyard me --server http://127.0.0.1:8080 --key mdy_…`
    """
    work = RemoteBackend(running_server(data, server), needed_key(key))
    try:
        said = work.me()
    finally:
        work.close()
    if as_json:
        print_json(said)
        return
    own, limits, left = said["key"], said["limits"], said["left"]
    print_facts({
        "Client": said["client"], "Key": own["id"], "Scopes": " ".join(own["scopes"]),
        "Models": " ".join(own["models"]), "Expires": moment(own["expires_at"]),
        "Rate": _of(left["rate"], limits["rate"], left["rate_reset_s"]),
        "Quota": _of(left["quota"], limits["quota"], left["quota_reset_s"]),
        "Concurrency": _of(left["concurrency"], limits["concurrency"], None),
    })  # fmt: skip


def _of(left: int | None, limit: Any, reset_s: float | None) -> str:
    """`97 left of 100/s, all of it in 1 s`; nothing where there is no limit."""
    if limit is None:
        return ""
    known = f"{limit}" if left is None else f"{left} left of {limit}"
    return known if reset_s is None else f"{known}, all of it in {max(0, round(reset_s))} s"
