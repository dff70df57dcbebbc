"""The stations over one data folder, put together for the routes and the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from modelyard.analytics.desk import AnalyticsDesk
from modelyard.app.folder import DataFolder
from modelyard.app.sweeping import archiver_of
from modelyard.auth.keys import KeyIssuer
from modelyard.core.clock import Clock, SystemClock
from modelyard.core.settings import Settings
from modelyard.http.processes.health import UnhealthyVersions
from modelyard.http.processes.loads import LoadFiles
from modelyard.http.services import Services
from modelyard.journal.outcomes import OutcomeDesk, find_spooled
from modelyard.models.loads.admission import Admission
from modelyard.models.publish import Publisher
from modelyard.retention.desk import RetentionDesk
from modelyard.retention.sweep import Sweeper
from modelyard.routing.ports import routed
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.child import check_in_child
from modelyard.storage.file.secret import installation_secret
from modelyard.storage.sql.open import open_stores
from modelyard.storage.stores import Stores


def open_services(settings: Settings, breathe: Callable[[], object] | None = None) -> Services:
    """Opens the data folder's stores and wires the stations; `Services.close` gives all back. `breathe` is called again
    and again while a long statement runs in this process.

    Several processes may do so at once. SettingsError("data_folder_unusable" | "setting_invalid").
    """
    folder = DataFolder(settings.data)
    folder.open()
    stores = open_stores(settings, folder.path, breathe=breathe)
    clock = SystemClock()
    admission = Admission(settings, stores.registry, lambda: routed(stores.endpoints.endpoints()))

    def drain(watch: Callable[[], object] | None = None) -> int:
        from modelyard.codec.log import decode_for_log  # brings the codecs, which few commands need
        from modelyard.journal.drain import drain_once
        from modelyard.storage.file.kept import KeptAnswers

        decode = partial(decode_for_log, key=installation_secret(folder.path), spliced=True)
        durable = settings.journal.durability == "host"
        kept = KeptAnswers(folder.kept, folder.spool, 0, clock, durable)
        try:
            return drain_once(
                folder.spool, stores.sink, settings.journal, clock, decode=decode, note=kept.note, watch=watch
            ).records
        finally:
            kept.close()

    return Services(
        settings=settings,
        clock=clock,
        keys=KeyIssuer(stores.keys, clock),
        key_store=stores.keys,
        usage=stores.usage,
        endpoints=stores.endpoints,
        registry=stores.registry,
        artifacts=stores.artifacts,
        runtimes=RUNTIMES,
        publisher=Publisher(stores.registry, stores.artifacts, settings, clock, check_in_child, admission.version),
        log=stores.log,
        sink=stores.sink,
        audit=stores.audit,
        outcomes=OutcomeDesk(
            stores.outcomes, lambda ids: find_spooled(folder.spool, ids, stores.sink.position, clock), clock
        ),
        quarantine=stores.quarantine,
        analytics=None if stores.analytics is None else AnalyticsDesk(stores.analytics, stores.leases, clock),
        retention=_retention(settings, folder, stores, clock),
        drain=drain,
        ping=stores.ping,
        close=stores.close,
        unhealthy=UnhealthyVersions(folder.unhealthy),
        loads=LoadFiles(folder.loads),
        admission=admission,
    )


def _retention(settings: Settings, folder: DataFolder, stores: Stores, clock: Clock) -> RetentionDesk:
    def forget(prediction_ids: Sequence[str]) -> int:
        from modelyard.storage.file.kept import KeptAnswers

        kept = KeptAnswers(folder.kept, folder.spool, 0, clock, settings.journal.durability == "host")
        try:
            return kept.forget(prediction_ids)
        finally:
            kept.close()

    archiver = archiver_of(stores, settings.retention.batch)
    sweeper = Sweeper(stores.retention, stores.leases, settings.retention, clock, archiver=archiver)
    return RetentionDesk(sweeper, stores.holds, stores.erasures, forget, clock, stores.archive, stores.leases)
