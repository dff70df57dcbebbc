"""One HTTP worker process, put together."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import uvloop

from modelyard.app.auditing import flush_refusals, follow_refusals
from modelyard.app.folder import DataFolder
from modelyard.app.services import open_services
from modelyard.app.usage import UsageKeeping
from modelyard.auth.ports import KeySnapshot
from modelyard.auth.table import KeyTable, Principal
from modelyard.codec import CODECS
from modelyard.codec.compression import decompress
from modelyard.codec.log import decode_for_log
from modelyard.core.call import RateState
from modelyard.core.clock import Clock, SystemClock
from modelyard.core.errors import LimitError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import HttpSettings, JournalSettings, LimitsSettings, Settings
from modelyard.http.edge.proxied import Edge
from modelyard.http.edge.tls import TlsContext, tls_files
from modelyard.http.errors import render_error
from modelyard.http.processes.board import Board
from modelyard.http.processes.health import RunNotes, Suspects, UnhealthyVersions
from modelyard.http.processes.loads import LoadFiles
from modelyard.http.processes.tally import Tallies, Tally
from modelyard.http.processes.worker import Worker
from modelyard.http.services import Services
from modelyard.http.shared import Shared
from modelyard.http.snapshots import LEAVE_AFTER_S, Snapshots
from modelyard.http.twin import AsgiApp, Door, Receive, Scope, Send
from modelyard.http.wire import presented_key
from modelyard.journal.durability.commit import GroupCommit, commit_at_once
from modelyard.journal.durability.store import StoreJournal
from modelyard.journal.ids import PredictionIds, new_epoch
from modelyard.journal.interpret import RecordDecoder
from modelyard.journal.spool import SpoolWriter
from modelyard.limits.clients import ClientLimits
from modelyard.limits.concurrency import ClientPermits
from modelyard.limits.failures import FailedAttempts
from modelyard.limits.gcra import SharedGcra
from modelyard.limits.ports import RateCounter
from modelyard.limits.quota import Quotas, SharedQuota
from modelyard.limits.remote import RemoteRates
from modelyard.models.catalog import Catalog
from modelyard.predict import Predictor, Replays, WaitingPredictor
from modelyard.predict.ports import Commit, Journal
from modelyard.routing.table import RoutingTable
from modelyard.runtimes.shared.runtime import Meeting, SharedRuntimes, installed
from modelyard.runtimes.threads import size_threads
from modelyard.storage.counters import open_counter
from modelyard.storage.file.kept import KeptAnswers
from modelyard.storage.file.secret import installation_secret
from modelyard.telemetry.logs import emit

RESERVED_DESCRIPTORS = 64
"""Beside connections: spool, database, models, pipes, and those that are being refused."""
TEND_EVERY_S = 0.5
"""How soon the keys that a dead worker held are settled: callers wait for that."""
SAY_FULL_EVERY_S = 60.0
"""How often a worker says that answers under Idempotency-Keys were forgotten early."""
EFFECTIVE_WITHIN_S = 2.0
"""How long the answer to a change waits until every worker answers by it."""


class Handles(msgspec.Struct, frozen=True):
    """What the parent hands to a worker."""

    slot: int
    listener_fd: int
    control_fd: int
    counter_fd: int
    quota_fd: int
    successor: bool


class Recording(NamedTuple):
    """How a worker's records leave: as `journal.durability` says. `poll` is called twice a second."""

    journal: Journal
    commit: Commit
    poll: Callable[[], None]
    close: Callable[[], None]


def run_worker(settings: Settings, handles: Handles) -> None:
    """Runs one worker until it is told to stop."""
    uvloop.run(_main(settings, handles))


async def _main(settings: Settings, handles: Handles) -> None:
    loop = asyncio.get_running_loop()
    folder = DataFolder(settings.data)
    clock = SystemClock()
    board = Board(folder.board)
    board.join(handles.slot)
    # A dashboard's question runs in a thread here: it gives core and interpreter to the loop again and again.
    services = open_services(settings, breathe=os.sched_yield)
    next_id = PredictionIds(epoch := new_epoch()).next
    counter = SharedGcra.attach(handles.counter_fd, clock, on_failure=settings.limits.on_failure)
    with (
        ThreadPoolExecutor(settings.batching.executor_threads, "run") as runs,
        ThreadPoolExecutor(1, "decode") as decoder,
        ThreadPoolExecutor(4, "background") as background,
        ThreadPoolExecutor(1, "sync") as syncs,
    ):
        recording = _recording(settings, services, epoch, loop, syncs)
        replays, tending = keep_answers(folder, epoch, clock, settings.journal, background)
        tally = Tallies(folder.tallies).open(handles.slot)
        quota = SharedQuota(handles.quota_fd)
        clients = ClientLimits(Quotas(quota, clock), ClientPermits(settings.workers))
        usage = UsageKeeping(services.usage, quota, clock)
        predictor_over, close_counter = await counting_by(settings.limits, counter)
        predictor = predictor_over(
            settings=settings,
            loop=loop,
            executor=runs,
            decoder=decoder,
            counter=counter,
            journal=recording.journal,
            commit=recording.commit,
            next_id=next_id,
            render_error=render_error,
            codecs=CODECS,
            keys=KeyTable(KeySnapshot(0, (), ())),
            table=RoutingTable(0, (), {}),
            replays=replays,
            note=tally.note,
            clients=clients,
            attempts=FailedAttempts(clock),
            refused=services.refused.note,
        )
        notes = _run_notes(settings, folder, board, handles.slot, clock)
        catalog = _catalog(settings, services, clock, notes, tally, handles.slot)
        snapshots = _snapshots(settings, services, background, board, handles.slot, catalog)
        await snapshots.first(predictor, handles.successor)
        follow = loop.create_task(snapshots.follow(predictor))
        refusals = loop.create_task(follow_refusals(services, background))
        keeping = loop.create_task(usage.follow(predictor, background))
        poll = _polling(recording.poll, catalog, tally)
        worker = _worker(settings, handles, board, services, predictor, snapshots, notes, next_id, poll)
        await worker.run()
        await close_counter()
        for task in (follow, refusals, tending, keeping):
            task.cancel()
        usage.finish(predictor)
        flush_refusals(services)
        recording.close()
    services.close()
    board.close()


def _recording(
    settings: Settings, services: Services, epoch: int, loop: asyncio.AbstractEventLoop, executor: Executor
) -> Recording:
    folder, clock = DataFolder(settings.data), SystemClock()
    if settings.journal.durability == "store":
        stored = _to_the_store(settings, services, loop, executor)
        return Recording(stored, stored.commit, lambda: None, lambda: None)
    writer = SpoolWriter(folder.spool, epoch, settings.journal, clock, broken=_end_process)
    synced = GroupCommit(loop, executor, writer.sync, _end_process)
    commit: Commit = synced if settings.journal.durability == "host" else commit_at_once
    return Recording(writer, commit, writer.poll, writer.close)


def _to_the_store(
    settings: Settings, services: Services, loop: asyncio.AbstractEventLoop, executor: Executor
) -> StoreJournal:
    clock, sink = SystemClock(), services.sink
    decode = partial(decode_for_log, key=installation_secret(settings.data), spliced=True)
    decoder = RecordDecoder(sink.signature, decode, decompress, clock, settings.http.max_body_bytes)
    return StoreJournal(loop, executor, sink, decoder, clock, max_batch=settings.journal.drain_batch)


async def counting_by(
    limits: LimitsSettings, own: RateCounter
) -> tuple[Callable[..., Predictor], Callable[[], Awaitable[None]]]:
    """The predictor to make, and what ends its counting: each host counts by itself, or hosts share a counter, which
    is connected if it answers."""
    counter = open_counter(limits)
    if counter is None:
        return Predictor, _nothing
    rates = RemoteRates(counter, own, limits)
    await rates.start()
    return partial(WaitingPredictor, rates=rates), rates.close


async def _nothing() -> None:
    return None


def keep_answers(
    folder: DataFolder, epoch: int, clock: Clock, journal: JournalSettings, executor: Executor
) -> tuple[Replays, asyncio.Task[None]]:
    """The worker's index, and the task that tends it until it is cancelled."""
    durable = journal.durability == "host"
    index = KeptAnswers(folder.kept, folder.spool, epoch, clock, durable)
    index.hold()
    replays = Replays(index)
    tended = KeptAnswers(folder.kept, folder.spool, epoch, clock, durable, journal.max_kept_bytes)
    return replays, asyncio.get_running_loop().create_task(_tend(replays, tended, clock, executor))


async def _tend(replays: Replays, tended: KeptAnswers, clock: Clock, executor: Executor) -> None:
    failing, forgotten, said_s = False, 0, -SAY_FULL_EVERY_S
    while True:
        try:
            forgotten += await asyncio.get_running_loop().run_in_executor(executor, tended.tend)
            failing = False
            if forgotten and clock.monotonic() - said_s >= SAY_FULL_EVERY_S:
                emit(Event.JOURNAL_KEPT_FULL, "warning", forgotten=forgotten)
                forgotten, said_s = 0, clock.monotonic()
        except (UnavailableError, OSError) as error:
            if not failing:
                failing = True
                emit(Event.SNAPSHOT_FAILED, "warning", error=type(error).__name__, reason=str(error)[:300])
        replays.retry()
        await asyncio.sleep(TEND_EVERY_S)


def _run_notes(settings: Settings, folder: DataFolder, board: Board, slot: int, clock: Clock) -> RunNotes:
    """What this worker runs. A jailed version whose process keeps dying is taken out like one that kills workers."""
    notes = RunNotes(board.runs(slot), UnhealthyVersions(folder.unhealthy), clock)

    def take_out(token: int) -> None:
        from modelyard.app.server import mark_unhealthy  # which itself imports this module, by way of the children

        mark_unhealthy(settings, folder, board, token)

    notes.judge(Suspects(settings.models.unhealthy_deaths, settings.models.unhealthy_within_s), take_out)
    return notes


def _catalog(settings: Settings, services: Services, clock: Clock, notes: RunNotes, tally: Tally, slot: int) -> Catalog:
    sized, folder = size_threads(settings), DataFolder(settings.data)
    alone = settings.models.max_threads or sized.usable
    meeting = Meeting(folder.run, alone, os.getppid(), release=installed())
    runtimes, told = SharedRuntimes(services.runtimes, settings, meeting), LoadFiles(folder.loads).writer(slot)
    return Catalog(services.artifacts, runtimes, settings, clock, sized.threads, notes, told, tally.answered_at)


def _polling(poll: Callable[[], None], catalog: Catalog, tally: Tally) -> Callable[[], None]:
    def polled() -> None:
        poll()
        catalog.log.note_answers(tally.answered_at)

    return polled


def _snapshots(
    settings: Settings,
    services: Services,
    executor: Executor,
    board: Board,
    slot: int,
    catalog: Catalog,
) -> Snapshots:
    return Snapshots(
        services.key_store,
        services.endpoints,
        services.registry,
        catalog,
        settings.snapshot,
        executor,
        applied=lambda version: board.apply(slot, version),
        changes=board.changes,
        ready_when_empty=settings.http.ready_when_empty,
        asked=catalog.ask,
        leave_after_s=LEAVE_AFTER_S + settings.limits.timeout_ms / 1e3,
    )


def _worker(
    settings: Settings,
    handles: Handles,
    board: Board,
    services: Services,
    predictor: Predictor,
    snapshots: Snapshots,
    notes: RunNotes,
    next_id: Callable[[], str],
    poll: Callable[[], None],
) -> Worker:
    shared = Shared(predictor, within_descriptors(settings.http), render_error, next_id)
    worker: Worker

    async def effective() -> None:
        await asyncio.to_thread(lambda: board.wait_applied(services.key_store.version(), EFFECTIVE_WITHIN_S))

    management = _later(lambda: _management(services, _gate(predictor), lambda: worker.reason, predictor))
    door = Door(shared, management, effective)
    files = tls_files(settings.http, DataFolder(settings.data).path)
    worker = Worker(
        settings=settings,
        listener=socket.socket(fileno=handles.listener_fd),
        control=_nonblocking(socket.socket(fileno=handles.control_fd)),
        board=board,
        slot=handles.slot,
        shared=shared,
        predictor=predictor,
        app=Edge(door, settings.http),
        reason=lambda: snapshots.ready_reason,
        poll=poll,
        longest_run_s=notes.longest_run_s,
        tls=None if files is None else TlsContext(files),
    )
    return worker


def within_descriptors(http: HttpSettings) -> HttpSettings:
    """Never more connections than the process has descriptors for, the spool's and the models' left out: without one
    for the spool every prediction would be refused. The process may have as many as its hard limit says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(1, soft - RESERVED_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or room >= http.max_connections:
        return http
    return http.model_copy(update={"max_connections": room})


def _gate(predictor: Predictor) -> Any:
    """The gate of the management routes: key, then the client's rate, which the door shows on refusals too."""

    async def gate(request: Any) -> Principal:
        principal = request.state.principal = predictor.authenticate(
            presented_key(request.headers.raw), request.client.host if request.client else ""
        )
        try:
            request.scope["state"]["rate"] = await predictor.take(principal)
        except LimitError as error:
            told = error.detail
            request.scope["state"]["rate"] = RateState(told["limit"], told["remaining"], told["reset_s"])
            raise
        return principal

    return gate


def _management(services: Services, gate: Any, reason: Callable[[], str], predictor: Predictor) -> AsgiApp:
    from modelyard.http.management import management_app

    counts = Tallies(DataFolder(services.settings.data).tallies).read
    application = management_app(services, gate, reason, lambda: predictor.table, counts)
    application.state.standing = lambda principal: what_is_left(predictor.clients, principal)
    return application


def what_is_left(clients: ClientLimits | None, principal: Principal) -> Any:
    """A client's own bounds as they are now, for `GET /v1/me`."""
    from modelyard.http.routes.me import Rest

    if clients is None:
        return Rest()
    quota = reset_s = concurrency = None
    if principal.quota_per_day is not None:
        quota, reset_s = clients.quotas.left(principal.slot, principal.quota_per_day)
    if principal.concurrency is not None:
        concurrency = clients.permits.left(principal.slot, principal.concurrency)
    return Rest(quota, reset_s, concurrency)


def _later(build: Callable[[], AsgiApp]) -> AsgiApp:
    """The application that `build` makes in a thread meanwhile: predictions do not wait for FastAPI's import."""
    building = asyncio.ensure_future(asyncio.to_thread(build))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (await building)(scope, receive, send)

    return app


def _nonblocking(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    return connection


def _end_process(error: BaseException) -> None:
    """The disk lost what it was given: acknowledging must stop at once, also for what is half-way (F6)."""
    os._exit(70)
