"""Steady load on one endpoint from several connections, while something else is changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from modelyard.cli.demonstration.calling import Client, Form, Got, request
from modelyard.cli.demonstration.training import Lesson
from modelyard.core.errors import CommandError

ALL_WITHIN_S = 60.0


class Load:
    """`total` requests for an endpoint's rows, in all forms in turn, one row each; every answer is kept."""

    def __init__(
        self,
        lesson: Lesson,
        connect: Callable[[], AbstractContextManager[Client]],
        connections: int,
        total: int,
        done: Callable[[int], None],
    ) -> None:
        self._lesson = lesson
        self._connect = connect
        self._total = total
        self._done = done
        self._got: list[Got] = []
        self._next = 0
        self._guard = threading.Lock()
        self._deadline_s = time.monotonic() + ALL_WITHIN_S
        self._requests = [
            request(lesson, form, row, 1, pinned=False) for row in range(len(lesson.rows)) for form in Form
        ]
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]

    def start(self) -> None:
        """Starts all connections."""
        for thread in self._threads:
            thread.start()

    def wait_for_answers(self, count: int) -> None:
        """Returns once so many answers came; CommandError("server_unreachable") if they do not."""
        while len(self._got) < count:
            if time.monotonic() > self._deadline_s or not any(thread.is_alive() for thread in self._threads):
                raise CommandError("server_unreachable", f"The server did not answer {count} requests under load.")
            time.sleep(0.005)

    def finish(self) -> tuple[Got, ...]:
        """All answers, once the last came."""
        for thread in self._threads:
            thread.join(max(0.0, self._deadline_s - time.monotonic()) + 1.0)
        return tuple(self._got)

    def _run(self) -> None:
        with self._connect() as client:
            while (number := self._take()) is not None and time.monotonic() < self._deadline_s:
                asked = self._requests[number % len(self._requests)]
                self._got.append(client.ask(asked, self._lesson.labels))
                self._done(1)

    def _take(self) -> int | None:
        with self._guard:
            if self._next >= self._total:
                return None
            self._next += 1
            return self._next - 1
