"""The emulator's process: prints its port, then serves until it is ended.

Around moto it does what the service does and moto does not: one request at a time (moto's transactions are not alone),
and an answer that was given under a ClientRequestToken is given again. It remembers what it was asked, and fails as it
was told to.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

ASKED, FAULTS = "/-/asked", "/-/faults"
_TARGET = "DynamoDB_20120810."

Answer = tuple[str, list[tuple[str, str]], bytes]


class Watched:
    """A WSGI application around moto's."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._asked: list[dict[str, Any]] = []
        self._faults: list[dict[str, Any]] = []
        self._answers: dict[str, Answer] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "").removeprefix(_TARGET)
        with self._lock:
            if environ["PATH_INFO"] in (ASKED, FAULTS):
                answer = self._told(environ)
            elif target:
                answer = self._answered(target, environ)
            else:
                answer = self._passed(environ)
        start_response(*answer[:2])
        return [answer[2]]

    def _told(self, environ: dict[str, Any]) -> Answer:
        if environ["PATH_INFO"] == FAULTS:
            self._faults = json.loads(_body(environ))
            return "200 OK", [], b"{}"
        asked, self._asked = self._asked, []
        return "200 OK", [("Content-Type", "application/json")], json.dumps(asked).encode()

    def _answered(self, target: str, environ: dict[str, Any]) -> Answer:
        body = _body(environ)
        asked = json.loads(body)
        self._asked.append({"target": target, "request": asked})
        fault = next((f for f in self._faults if f["times"] > 0 and f["target"] in ("", target)), None)
        if fault is not None:
            fault["times"] -= 1
            if fault.get("applied"):
                self._known(target, asked, body, environ)
            if "unprocessed" in fault:
                return self._half(asked, environ)
            return _refusal(fault["status"], fault["code"])
        return self._known(target, asked, body, environ)

    def _known(self, target: str, asked: dict[str, Any], body: bytes, environ: dict[str, Any]) -> Answer:
        token = asked.get("ClientRequestToken")
        if token in self._answers:
            return self._answers[token]
        answer = self._passed({**environ, "wsgi.input": io.BytesIO(body)})
        if token is not None and answer[0].startswith("200"):
            self._answers[token] = answer
        return answer

    def _half(self, asked: dict[str, Any], environ: dict[str, Any]) -> Answer:
        """Does the first half of a BatchWriteItem and leaves the rest."""
        ((table, requests),) = asked["RequestItems"].items()
        done, left = requests[: len(requests) // 2], requests[len(requests) // 2 :]
        if done:
            body = json.dumps({"RequestItems": {table: done}}).encode()
            self._passed({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
        said = json.dumps({"UnprocessedItems": {table: left}}).encode()
        return "200 OK", [("Content-Type", "application/x-amz-json-1.0")], said

    def _passed(self, environ: dict[str, Any]) -> Answer:
        said: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_rest: Any) -> None:
            said[:] = [status, headers]

        content = b"".join(self._inner(environ, start_response))
        return said[0], said[1], content


def _refusal(status: int, code: str) -> Answer:
    told = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "arn:aws:iam::123456789012:user/hunter2"}
    return f"{status} Told", [("Content-Type", "application/x-amz-json-1.0")], json.dumps(told).encode()


def _body(environ: dict[str, Any]) -> bytes:
    content: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return content


def main() -> None:
    """Serves on a free port of the loopback."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):  # type: ignore[misc]
        """No line per request; answers leave at once."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log(self, *_args: Any) -> None:
            """Nothing."""

    app = Watched(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
