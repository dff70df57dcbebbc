"""Clients that send one request after the other, each over its own connection, and keep what they got."""

from __future__ import annotations

import http.client
import json
import threading
from dataclasses import dataclass, field
from typing import Any

import trained
from server import ANSWER_WITHIN_S, RunningServer


@dataclass(frozen=True)
class Answered:
    """One answer: its status, its headers, the number of the row that was asked about, and the JSON."""

    status: int
    headers: dict[str, str]
    row: int
    body: Any


@dataclass
class Client:
    """One thread. `failures` are requests without an answer: refused, reset or cut off."""

    server: RunningServer
    key: str
    path: str
    offset: int
    stop: threading.Event
    answers: list[Answered] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Sends rows of the cancer table until told to stop; reconnects only where the server says `close`."""
        rows = trained.cancer().rows
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=ANSWER_WITHIN_S)
        row = self.offset
        while not self.stop.is_set():
            row = (row + 1) % len(rows)
            body = json.dumps(trained.infer_body(X=rows[row : row + 1]))
            try:
                connection.request("POST", self.path, body, {"x-api-key": self.key})
                reply = connection.getresponse()
                content = json.loads(reply.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            headers = {name.lower(): value for name, value in reply.getheaders()}
            self.answers.append(Answered(reply.status, headers, row, content))
            if headers.get("connection") == "close":
                connection.close()
        connection.close()


class Load:
    """Some clients at once; a context."""

    def __init__(self, server: RunningServer, key: str, path: str, clients: int) -> None:
        self.stop = threading.Event()
        self.clients = [Client(server, key, path, 7 * number, self.stop) for number in range(clients)]
        self._threads = [threading.Thread(target=client.run, daemon=True) for client in self.clients]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_WITHIN_S)
            assert not thread.is_alive()

    @property
    def answers(self) -> list[Answered]:
        """What all clients got."""
        return [answer for client in self.clients for answer in list(client.answers)]

    @property
    def failures(self) -> list[str]:
        """What all clients lost."""
        return [failure for client in self.clients for failure in client.failures]
