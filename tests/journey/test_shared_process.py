"""A version that all workers share, behind a real server: one process, its death under load, a worker's, the stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import urllib3
from server import RunningServer, until
from trained import cancer, infer_body

from sharedmodels.hosts import hosts_of

SETTINGS = {"models.shared_from_bytes": "1", "models.jail_tensor_bytes": str(4 * 1024**2)}
BACK_WITHIN_S = 15.0
RELOADED_WITHIN_S = 60.0
TRANSIENT = {"model_crashed", "model_not_ready"}


class Callers:
    """Threads that ask for one row after the other; each answer is right, or says that it is not ready."""

    def __init__(self, server: RunningServer, count: int = 4) -> None:
        self._server = server
        self._rows = cancer().rows
        self._expected = cancer().probabilities
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(count)]
        self.right = self.cut = 0
        self.refused: list[str] = []
        self.wrong: list[object] = []
        for thread in self._threads:
            thread.start()

    def _call(self, number: int) -> None:
        while not self._over.is_set():
            number = (number + 7) % len(self._rows)
            try:
                body = infer_body(X=self._rows[number : number + 1])
                answer = self._server.ask("POST", "/v2/models/cancer/infer", body)
            except urllib3.exceptions.HTTPError:
                self.cut += 1  # a connection of the worker that was killed
                continue
            if answer.status != 200:
                code = answer.json["code"]
                (self.refused if code in TRANSIENT else self.wrong).append(code)
                time.sleep(0.02)
                continue
            outputs = {one["name"]: one["data"] for one in answer.json["outputs"]}
            if np.allclose(outputs["probabilities"], self._expected[number], atol=1e-5):
                self.right += 1
            else:
                self.wrong.append((number, outputs))

    def stop(self) -> None:
        """Ends them."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def test_two_workers_one_process(tmp_path: Path) -> None:
    """Issue D, K2: two workers answer out of one process. Killed under load it is back within a bound, no answer is
    wrong, and the death is in the log once; a worker killed under load takes nothing with it; a reload finds the
    process warm; nothing is left after the stop."""
    server = RunningServer(tmp_path / "data", workers=2, settings=SETTINGS).start()
    try:
        assert server.publish("cancer", cancer().content, "1").status == 201
        row = cancer().rows[:1]
        with server.every_worker() as connections:
            for connection in connections.values():
                headers = {"x-api-key": server.key, "content-type": "application/json"}
                connection.request("POST", "/v2/models/cancer/infer", json.dumps(infer_body(X=row)), headers)
                assert connection.getresponse().read().count(b"probabilities") == 1
        (first,) = hosts_of(server.process.pid)
        assert server.ask("GET", "/v1/models/cancer/versions/1").json["held_by"] == "shared_process"
        assert first not in server.worker_pids()
        callers = Callers(server)
        try:
            until(lambda: callers.right > 50, what="answers")
            os.kill(first, signal.SIGKILL)
            killed_s = time.monotonic()
            until(lambda: hosts_of(server.process.pid) not in ([], [first]), BACK_WITHIN_S, "another process")
            (second,) = hosts_of(server.process.pid)
            before = callers.right
            until(lambda: callers.right > before + 50, BACK_WITHIN_S, "answers again")
            assert time.monotonic() - killed_s < BACK_WITHIN_S
            assert callers.cut == 0
            worker = server.worker_pids()[0]
            os.kill(worker, signal.SIGKILL)
            before = callers.right
            until(lambda: worker not in server.worker_pids() and len(server.worker_pids()) == 2, what="a new worker")
            until(lambda: callers.right > before + 50, BACK_WITHIN_S, "answers beside a dead worker")
            assert hosts_of(server.process.pid) == [second]
            old = set(server.worker_pids())
            server.signal(signal.SIGUSR2)
            until(lambda: old.isdisjoint(server.worker_pids()), RELOADED_WITHIN_S, "the reload")
            before = callers.right
            until(lambda: callers.right > before + 50, BACK_WITHIN_S, "answers after a reload")
            assert hosts_of(server.process.pid) == [second]
        finally:
            callers.stop()
        assert callers.wrong == []
        lost = server.events("model.process_lost")
        assert [event["code"] for event in lost] == ["model_crashed"]
        assert server.events("model.unhealthy") == []
    except BaseException:
        server.end()
        raise
    server.stop()
    until(lambda: not hosts_of(server.process.pid), 2, "the end of the shared process")
