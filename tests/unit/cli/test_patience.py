"""How long a command waits for a server, and when it asks again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from modelyard.cli.backends.patience import ENVIRONMENT, Patience, patience, retry_after_s
from modelyard.cli.backends.remote import RemoteBackend
from modelyard.core.errors import CommandError, LimitError, ModelyardError

QUICK = Patience(connect_s=2.0, answer_s=5.0, retries=3, wait_s=10.0)


class Busy:
    """A server that answers what it is told to, one after the other, then 200; `asked` has every request."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str, str | None]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        busy = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                busy.asked.append((self.command, {name.lower(): text for name, text in self.headers.items()}))
                status, code, later = busy.answers.pop(0) if busy.answers else (200, "", None)
                form: dict[str, Any] = {"error": "Not now.", "code": code, "detail": {}, "request_id": "r"}
                body = json.dumps(form if status != 200 else {"revision": 7, "weights": {}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                if later is not None:
                    self.send_header("retry-after", later)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = _answer

            def log_message(self, *_: Any) -> None:
                return None

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def busy() -> Iterator[Busy]:
    """The server."""
    started = Busy()
    yield started
    started.stop()


@pytest.fixture
def waited() -> list[float]:
    """The pauses that were made; none of them is real."""
    return []


@pytest.fixture
def work(busy: Busy, waited: list[float]) -> Iterator[RemoteBackend]:
    """The backend, quick."""
    made = RemoteBackend(busy.url, None, QUICK, waited.append)
    yield made
    made.close()


def test_it_comes_back_when_it_is_told_to(busy: Busy, work: RemoteBackend, waited: list[float]) -> None:
    """429 and 503: as often as allowed, each time after `Retry-After`, a second where there is none."""
    busy.answers = [(429, "rate_limited", "2"), (503, "server_busy", None), (503, "shutting_down", "3")]
    assert work.ask("GET", "/v1/x").status == 200
    assert waited == [2.0, 1.0, 3.0]
    assert len(busy.asked) == 4


def test_it_does_not_come_back_for_ever(busy: Busy, work: RemoteBackend, waited: list[float]) -> None:
    """After the last try, or when it would have to wait longer than its bound, it says what the server said."""
    busy.answers = [(429, "rate_limited", "1")] * 5
    with pytest.raises(LimitError):
        work.ask("GET", "/v1/x")
    assert len(busy.asked) == 4
    busy.answers, busy.asked[:], waited[:] = [(429, "rate_limited", "86400")], [], []
    with pytest.raises(LimitError):
        work.ask("GET", "/v1/x")
    assert (len(busy.asked), waited) == (1, [])
    busy.answers = [(429, "rate_limited", "6")] * 3
    with pytest.raises(LimitError):
        work.ask("GET", "/v1/x")
    assert waited == [6.0], "10 seconds together are the most"


@pytest.mark.parametrize(
    ("code", "status", "asked"),
    [("server_busy", 503, 2), ("rate_limited", 429, 2), ("request_timeout", 503, 1), ("store_unavailable", 503, 1)],
)
def test_nothing_is_done_twice(busy: Busy, work: RemoteBackend, code: str, status: int, asked: int) -> None:
    """A POST that may have been carried out is not sent again; one that was refused before is."""
    busy.answers = [(status, code, "1")]
    if asked == 1:
        with pytest.raises(ModelyardError):
            work.ask("POST", "/v1/x", b"{}")
    else:
        assert work.ask("POST", "/v1/x", b"{}").status == 200
    assert len(busy.asked) == asked
    busy.answers, busy.asked[:] = [(status, code, "1")], []
    assert work.ask("PUT", "/v1/x", b"{}").status == 200


def test_a_change_of_traffic_says_what_was_seen(busy: Busy, work: RemoteBackend) -> None:
    """`If-Match` is the revision that was looked at, or the one that the operator names."""
    work.set_traffic("tree", {"1": 100})
    assert [verb for verb, _ in busy.asked] == ["GET", "PUT"]
    assert busy.asked[-1][1]["if-match"] == '"7"'
    work.set_traffic("tree", {"1": 100}, 3)
    assert [verb for verb, _ in busy.asked] == ["GET", "PUT", "PUT"]
    assert busy.asked[-1][1]["if-match"] == '"3"'


def test_the_environment_sets_every_bound() -> None:
    """Each bound has its name; what is no number is refused by that name."""
    values = {"connect_s": 1.0, "answer_s": 2.5, "publish_s": 3.0, "retries": 4, "wait_s": 5.0}
    given = {ENVIRONMENT[name]: str(value) for name, value in values.items()}
    assert patience(given) == Patience(**values)  # type: ignore[arg-type]
    assert patience({}) == Patience()
    for name in ENVIRONMENT.values():
        for text in ("x", "-1", "nan", "1e9", "١"):
            with pytest.raises(CommandError) as caught:
                patience({name: text})
            assert caught.value.detail["field"] == name
    with pytest.raises(CommandError):
        patience({"MODELYARD_TIMEOUT_S": "0"})


def test_what_is_no_number_of_seconds_is_one_second() -> None:
    """A date, or nonsense, in `Retry-After` never stops or hurries a command."""
    assert (retry_after_s("3"), retry_after_s("0")) == (3.0, 0.0)
    for text in (None, "", "soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert retry_after_s(text) == 1.0
