"""The whole sequence against a running server: publish, ask every row, switch under load, read the log, revoke."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from modelyard.cli.backends.patience import Patience
from modelyard.cli.backends.remote import RemoteBackend
from modelyard.cli.demonstration.calling import Client, Form, Got, HttpClient, request
from modelyard.cli.demonstration.load import Load
from modelyard.cli.demonstration.server import wait_for
from modelyard.cli.demonstration.training import Lesson
from modelyard.core.errors import UnavailableError

CLIENT = "demo"
RATE = "1000000/s"
"""The demo shows the log and the switch; a limit would only be in the way."""
BATCH_ROWS = 100
CONNECTIONS = 4
READY_WITHIN_S = 60.0
LOGGED_WITHIN_S = 30.0
REVOKED_WITHIN_S = 5.0
SWITCH_SHARE = 0.4
"""The switch comes after this share of the load."""
SWITCH_REQUESTS = 1500

Step = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""A step with its name and size; what it hands out is told of each unit done."""


@dataclass(frozen=True)
class Asking:
    """All answers of one version, one form and one size of request."""

    lesson: Lesson
    form: Form
    batch_rows: int
    got: tuple[Got, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """One per held-out row, in order."""
        return tuple(label for one in self.got for label in one.labels)


@dataclass(frozen=True)
class Switch:
    """Answers while an endpoint moved from one version to the other. `done_s` is when the change was confirmed."""

    lessons: tuple[Lesson, Lesson]
    got: tuple[Got, ...]
    asked_s: float
    done_s: float


@dataclass(frozen=True)
class Logged:
    """What the prediction log says. `ids` are those of its records; `record` is one of them, whole."""

    count: int
    ids: tuple[str, ...]
    waited_s: float
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Findings:
    """All that was seen."""

    askings: tuple[Asking, ...]
    switch: Switch
    logged: Logged
    revoked_status: int
    revoked_after_s: float

    @property
    def answers(self) -> Iterator[Got]:
        """Every answer to a predict request, without those after the key was revoked."""
        for asking in self.askings:
            yield from asking.got
        yield from self.switch.got


def play(lessons: Sequence[Lesson], url: str, admin_key: str, folder: Path, step: Step) -> Findings:
    """Plays it all. What the server does wrong is in the findings; ModelyardError where it refuses to go on."""
    admin = RemoteBackend(url, admin_key, Patience(retries=0))
    try:
        publish(admin, lessons, folder, step)
        key = admin.create_key(CLIENT, ["predict"], ["*"], RATE, "1d")
        connect = Connect(url, key["key"])
        askings = tuple(ask_everything(lessons, connect, step))
        switch = switch_under_load((lessons[0], lessons[1]), connect, admin, step)
        answered = sum(one.status == 200 for asking in askings for one in asking.got)
        answered += sum(one.status == 200 for one in switch.got)
        logged = read_log(admin, answered, askings[0].got[0].prediction_id, step)
        with step("Revoking the key", 1) as done:
            admin.revoke_key(key["id"])
            status, after_s = ask_revoked(lessons[0], connect)
            done(1)
        return Findings(askings, switch, logged, status, after_s)
    finally:
        admin.close()


@dataclass(frozen=True)
class Connect:
    """Opens connections of the demo's client."""

    url: str
    key: str

    @contextmanager
    def __call__(self) -> Iterator[HttpClient]:
        """One connection."""
        client = HttpClient(self.url, self.key)
        try:
            yield client
        finally:
            client.close()


def publish(admin: RemoteBackend, lessons: Sequence[Lesson], folder: Path, step: Step) -> None:
    """Publishes all versions and waits until the server calls itself ready."""
    with step("Publishing", len(lessons)) as done:
        for lesson in lessons:
            place = lesson.write(folder)
            admin.publish(lesson.model, place, lesson.version, None, None, lambda _: None)
            done(1)
        wait_for(lambda: _ready(admin), READY_WITHIN_S, "The server did not get ready")


def _ready(admin: RemoteBackend) -> bool:
    try:
        admin.ask("GET", "/v2/health/ready")
    except UnavailableError:
        return False
    return True


def ask_everything(lessons: Sequence[Lesson], connect: Connect, step: Step) -> Iterator[Asking]:
    """Every held-out row of every version in every form: one by one on one connection, then a hundred at a time."""
    total = sum(len(lesson.rows) for lesson in lessons) * len(Form) * 2
    with step("Predicting every held-out row", total) as done, connect() as client:
        for lesson in lessons:
            for form in Form:
                for batch_rows in (1, BATCH_ROWS):
                    got = tuple(_ask_rows(client, lesson, form, batch_rows, done))
                    yield Asking(lesson, form, batch_rows, got)


def _ask_rows(
    client: Client, lesson: Lesson, form: Form, batch_rows: int, done: Callable[[int], None]
) -> Iterator[Got]:
    for first in range(0, len(lesson.rows), batch_rows):
        got = client.ask(request(lesson, form, first, batch_rows, pinned=True), lesson.labels)
        done(got.asked.count)
        yield got


def switch_under_load(lessons: tuple[Lesson, Lesson], connect: Connect, admin: RemoteBackend, step: Step) -> Switch:
    """Moves the endpoint from the first version to the second while several connections ask it without a pause."""
    old, new = lessons
    with step(f"Switching {old.model} from {old.version} to {new.version} under load", SWITCH_REQUESTS) as done:
        load = Load(old, connect, CONNECTIONS, SWITCH_REQUESTS, done)
        load.start()
        load.wait_for_answers(int(SWITCH_REQUESTS * SWITCH_SHARE))
        asked_s = time.perf_counter()
        admin.set_traffic(old.model, {new.version: 100})
        done_s = time.perf_counter()
        return Switch(lessons, load.finish(), asked_s, done_s)


def read_log(admin: RemoteBackend, answered: int, one_id: str, step: Step) -> Logged:
    """Waits until the log has as many records as were answered (or until the bound), then reads it."""
    wanted = {"client": CLIENT, "status": "2xx"}
    begun = time.perf_counter()
    with step("Reading the prediction log", 1) as done:
        while (count := admin.count_predictions(wanted)) < answered and time.perf_counter() - begun < LOGGED_WITHIN_S:
            time.sleep(0.1)
        waited_s = time.perf_counter() - begun
        lines = b"".join(admin.export_predictions(wanted, "jsonl")).splitlines()
        ids = tuple(orjson.loads(line)["id"] for line in lines)
        record = admin.prediction(one_id)
        done(1)
    return Logged(count, ids, waited_s, record)


def ask_revoked(lesson: Lesson, connect: Connect) -> tuple[int, float]:
    """The status that the revoked key gets, and how long after the revocation; asks until it is refused."""
    begun = time.perf_counter()
    asked = request(lesson, Form.OIP_JSON, 0, 1, pinned=True)
    with connect() as client:
        while (status := client.ask(asked, lesson.labels).status) == 200:
            if time.perf_counter() - begun > REVOKED_WITHIN_S:
                break
    return status, time.perf_counter() - begun
