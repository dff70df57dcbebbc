"""A client that calls an ASGI application directly: no sockets, no threads of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def call(app: Any, method: str, target: str, body: bytes | Any = b"", key: str | None = None, **headers: str) -> Reply:
    """Sends one request; a body that is not bytes goes as JSON. Header names take `_` for `-`."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if not isinstance(body, bytes):
        body, fields = json.dumps(body).encode(), {"content-type": "application/json", **fields}
    if key is not None:
        fields["x-api-key"] = key
    return asyncio.run(_call(app, method, target, body, fields))


async def _call(app: Any, method: str, target: str, body: bytes, fields: Mapping[str, str]) -> Reply:
    path, _, query = target.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {"request_id": "req-1"},
    }  # fmt: skip
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] or [b""]
    sent: list[dict[str, Any]] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not pieces:
            await gone.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))
