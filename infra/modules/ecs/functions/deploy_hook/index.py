"""Deployment hook of ECS blue/green: may production traffic go to green?

ECS calls it in stage POST_TEST_TRAFFIC_SHIFT, when the test listener already leads to green. It answers
`{"hookStatus": "SUCCEEDED" | "FAILED"}`; FAILED, an error or no answer rolls the deployment back. Every wait is bounded
by a setting: the answer comes within ATTEMPTS x (TIMEOUT_S + DELAY_S) seconds per probe.

Settings (environment): TEST_HOST, TEST_PORT: the test listener; SCHEME: https, or http where the stack has no domain;
TLS_NAME: the name that the listener's certificate must carry; ATTEMPTS, DELAY_S, TIMEOUT_S.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from typing import Any

# Ready is what the load balancer asks too. The second probe holds "no key, no answer" before green meets a client.
PROBES = (("/v2/health/ready", 200), ("/v1/models", 401))


class NamedConnection(http.client.HTTPSConnection):
    """HTTPS to one address whose certificate carries another name: the load balancer answers as the API's origin."""

    def __init__(self, host: str, port: int, tls_name: str, timeout_s: float) -> None:
        self._tls = ssl.create_default_context()
        self._tls_name = tls_name
        super().__init__(host, port, timeout=timeout_s, context=self._tls)

    def connect(self) -> None:
        """Open the connection and verify the certificate against the API's name."""
        raw = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self._tls_name)


def connection() -> http.client.HTTPConnection:
    """Return a connection to the test listener, not opened yet."""
    host, port = os.environ["TEST_HOST"], int(os.environ["TEST_PORT"])
    timeout_s = float(os.environ.get("TIMEOUT_S", "5"))
    if os.environ.get("SCHEME", "https") == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return NamedConnection(host, port, os.environ["TLS_NAME"], timeout_s)


def has_blue(event: dict[str, Any]) -> bool:
    """Tell whether a revision serves production now; at a service's creation none does, and the hook must pass."""
    details = event.get("executionDetails") or {}
    green = details.get("targetServiceRevisionArn")
    weights = details.get("productionTrafficWeights") or {}
    return any(weight and revision != green for revision, weight in weights.items())


def status(path: str) -> int:
    """Return the status that green gives to GET `path`, 0 when it can't be reached in time."""
    link = connection()
    try:
        link.request("GET", path, headers={"user-agent": "modelyard-deploy-hook"})
        return link.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        link.close()


def passes(path: str, expected: int) -> bool:
    """Tell whether green gave `expected` within the allowed attempts."""
    for attempt in range(int(os.environ.get("ATTEMPTS", "10"))):
        if attempt:
            time.sleep(float(os.environ.get("DELAY_S", "3")))
        got = status(path)
        print(json.dumps({"event": "probe", "path": path, "expected": expected, "got": got, "attempt": attempt + 1}))
        if got == expected:
            return True
    return False


def handler(event: dict[str, Any], _context: object) -> dict[str, str]:
    """Answer ECS; see the module's docstring."""
    if not has_blue(event):
        return {"hookStatus": "SUCCEEDED"}
    return {"hookStatus": "SUCCEEDED" if all(passes(path, want) for path, want in PROBES) else "FAILED"}
