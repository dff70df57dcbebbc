"""Behind a proxy: the prefix and the caller's address, on native and on ASGI routes."""

from __future__ import annotations

from collections.abc import Callable

import trained
from server import RunningServer


def test_prefix_and_addresses(serve: Callable[..., RunningServer]) -> None:
    """With `http.root_path` health, management and predictions answer with the prefix and without it; another prefix
    is 404."""
    server = serve(settings={"http.root_path": "/yard", "http.trusted_proxies": '["127.0.0.0/8"]'})
    assert server.ask("PUT", "/yard/v1/models/cancer/versions/1", trained.cancer().content).status == 201
    key = server.create_key("behind", rate="100000/s")["key"]
    body = trained.infer_body(X=trained.cancer().rows[:2])
    for prefix, status in (("/yard", 200), ("", 200), ("/other", 404)):
        for path in ("/v2/models/cancer/infer", "/v2/mod%65ls/cancer/infer"):
            asked = server.ask("POST", prefix + path, body, key=key, headers={"x-forwarded-for": "198.51.100.1"})
            assert asked.status == status, (prefix, path, asked.body)
        assert server.ask("GET", prefix + "/v2/health/live", key=None).status == status
        assert server.ask("GET", prefix + "/v1/keys").status == status
