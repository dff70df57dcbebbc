"""A data folder, worked on directly; a server that runs on it follows within a second."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import typer

from modelyard.app.folder import DataFolder
from modelyard.app.services import open_services
from modelyard.audit.chain import Head
from modelyard.auth.scopes import parse_duration, parse_rate
from modelyard.cli.backends import NOTHING, Json, Progress
from modelyard.cli.terminal.output import progress, size_text
from modelyard.core.errors import ConflictError, ModelyardError, SettingsError
from modelyard.core.settings import load_settings
from modelyard.http.forms.asking import check_name, record_filter, traffic_weights
from modelyard.http.forms.export import export_lines, log_page
from modelyard.http.forms.figures import FIGURES, desk_of
from modelyard.http.forms.leaving import (
    BATCHES_PER_CALL,
    erase,
    hold_view,
    read_hold,
    retention_view,
    swept_view,
)
from modelyard.http.forms.loads import loads_view
from modelyard.http.forms.outcomes import Giver, give_many, outcome_view, read_outcome
from modelyard.http.forms.trail import audit_filter, export_events, head_view, verification_view
from modelyard.http.forms.views import (
    endpoint_view,
    issued_view,
    model_summaries,
    model_view,
    version_view,
)
from modelyard.http.processes.board import Board
from modelyard.http.resource.keys import (
    change_key,
    client_bounds,
    key_selection,
    revoke_selected,
    selected_keys,
    show_key,
)
from modelyard.http.services import admit_traffic, revive, unhealthy_among
from modelyard.journal.ports import RecordLog
from modelyard.journal.spool import spool_bytes
from modelyard.models.signing.trusted import trusted_ids
from modelyard.telemetry.logs import configure_logging

LARGE_SPOOL_BYTES = 32 * 1024 * 1024
"""More than about a second's work for the drain: worth a bar."""
EFFECTIVE_WITHIN_S = 5.0
"""How long a change waits for the workers of a running server; they follow later all the same."""
REFRESH_S = 20.0
"""How long a command rolls up an old log before it answers; the answer says what still waits."""

_LOCAL = Giver("local", "", lambda target: True)
"""Whoever may read the folder may speak of all requests."""


class LocalBackend:
    """cli.backends.Backend over one data folder. Reading the log first brings in what waits in the spool."""

    def __init__(self, data: Path) -> None:
        if not structlog.is_configured():
            # Events go to standard error, so that `--json` owns standard output; refusals are said by the command.
            configure_logging("debug" if os.environ.get("MODELYARD_DEBUG") == "1" else "error")
        self._services = open_services(load_settings(data=data))
        self._folder = DataFolder(data)

    def create_key(
        self,
        client: str,
        scopes: Sequence[str],
        models: Sequence[str],
        rate: str | None,
        expires: str | None,
        bounds: Mapping[str, Any] = NOTHING,
    ) -> Json:
        """Issues a key."""
        issued = self._services.keys.create(
            client,
            scopes=scopes,
            models=models,
            rate=None if rate is None else parse_rate(rate),
            bounds=client_bounds(bounds),
            expires_in_s=None if expires is None else parse_duration(expires),
        )
        self._effective()
        return issued_view(issued, self._now())

    def keys(self, selection: Mapping[str, str] = NOTHING) -> list[Json]:
        """Keys, newest first."""
        return selected_keys(self._services, key_selection(selection, self._now()))

    def change_key(self, key_id: str, given: Mapping[str, Any]) -> Json:
        """Changes a key and its client."""
        changed = change_key(self._services, key_id, given)
        self._effective()
        return show_key(self._services, changed)

    def rotate_key(self, key_id: str, overlap: str) -> Json:
        """Issues a successor."""
        issued = self._services.keys.rotate(key_id, parse_duration(overlap, "overlap"))
        self._effective()
        return issued_view(issued, self._now())

    def revoke_key(self, key_id: str) -> Json:
        """Ends a key."""
        key = self._services.keys.revoke(key_id)
        self._effective()
        return show_key(self._services, key)

    def revoke_keys(self, selection: Mapping[str, str], dry_run: bool) -> Json:
        """Ends the keys of a selection."""
        ended = revoke_selected(self._services, key_selection(selection, self._now()), dry_run)
        self._effective()
        return ended

    def publish(
        self,
        model: str,
        source: Path,
        version: str | None,
        metrics: Json | None,
        example: Json | None,
        sent: Progress,
    ) -> Json:
        """Publishes a file or folder."""
        published = self._services.publisher.publish(model, source, version, metrics, example)
        self._effective()
        return version_view(published.version, self._trusted()) | {"created": published.created}

    def models(self) -> list[Json]:
        """All models, by name."""
        versions = self._services.registry.versions()
        ill = unhealthy_among(self._services, versions)
        return model_summaries(versions, self._services.endpoints.endpoints(), ill)

    def model(self, name: str) -> Json:
        """One model with its versions."""
        versions = self._services.registry.versions(check_name(name, "model"))
        ill = unhealthy_among(self._services, versions)
        return model_view(name, versions, self._services.endpoints.endpoints(), ill)

    def version(self, model: str, version: str) -> Json:
        """One version."""
        known = self._services.registry.version(check_name(model, "model"), check_name(version, "version"))
        loads = loads_view(self._services.loads, known.model, known.version)
        return version_view(known, self._trusted()) | {"loads": loads}

    def revive(self, model: str, version: str) -> Json:
        """Loads a version again."""
        done = revive(self._services, check_name(model, "model"), check_name(version, "version"))
        self._effective()
        return done

    def traffic(self, endpoint: str) -> Json:
        """An endpoint's shares."""
        return endpoint_view(self._services.endpoints.endpoint(check_name(endpoint, "endpoint")))

    def set_traffic(self, endpoint: str, weights: Mapping[str, int], revision: int | None = None) -> Json:
        """Replaces what was seen."""
        name = check_name(endpoint, "endpoint")
        asked = traffic_weights(weights)
        admit_traffic(self._services, name, asked)
        changed = self._services.endpoints.set_traffic(name, asked, revision)
        self._effective()
        return endpoint_view(changed)

    def predictions(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> Json:
        """One page."""
        self._drain()
        wanted = record_filter(filters, self._now())
        if filters.get("quarantined"):
            page = self._services.quarantine.page(wanted, limit, cursor)
        else:
            page = log_page(self._log(filters), wanted, limit, cursor)
        return {"predictions": list(page.records), "next_cursor": page.cursor}

    def count_predictions(self, filters: Mapping[str, str]) -> int:
        """How many match."""
        self._drain()
        return self._log(filters).count(record_filter(filters, self._now()))

    def prediction(self, prediction_id: str, raw: bool = False) -> Json:
        """One record."""
        self._drain()
        record = self._services.log.get(prediction_id)
        return record | {"kept": self._services.quarantine.raw(prediction_id)} if raw else record

    def export_predictions(self, filters: Mapping[str, str], form: str) -> Iterator[bytes]:
        """All that match."""
        self._drain()
        return export_lines(self._log(filters), record_filter(filters, self._now()), form)

    def give_outcome(self, prediction_id: str, said: Json) -> Json:
        """Gives one outcome."""
        outcome = read_outcome({"id": prediction_id, **said}, _LOCAL, self._now())
        (result,) = self._services.outcomes.give([outcome], _LOCAL.may)
        if isinstance(result, ModelyardError):
            raise result
        return outcome_view(result)

    def give_outcomes(self, lines: bytes) -> Json:
        """Gives many."""
        return give_many(self._services.outcomes, lines, _LOCAL, self._now())

    def outcomes(self, prediction_id: str) -> Json:
        """All outcomes that a request's items were given."""
        self.prediction(prediction_id)
        return {"outcomes": self._services.outcomes.history(prediction_id)}

    def analytics(self, question: str, asked: Mapping[str, str]) -> Json:
        """Figures of the log; what waits to be rolled up is, first, as far as that goes in a moment."""
        self._drain()
        desk = desk_of(self._services.analytics)
        ends = self._services.clock.monotonic() + REFRESH_S
        desk.refresh(lambda: self._services.clock.monotonic() < ends)
        return FIGURES[question](desk, asked, self._now())

    def audit(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> Json:
        """One page of the audit log."""
        page = self._services.audit.page(audit_filter(filters, self._now()), limit, cursor)
        return {"events": [event.view() for event in page.events], "next_cursor": page.cursor}

    def audit_head(self) -> Json | None:
        """Its last event."""
        return head_view(self._services.audit.head())

    def verify_audit(self, kept: Json | None) -> Json:
        """The check of its chain."""
        heads = () if kept is None else (Head(kept["sequence"], kept["hash"]),)
        return verification_view(self._services.audit.verify(heads))

    def export_audit(self, filters: Mapping[str, str]) -> Iterator[bytes]:
        """All events that match."""
        return export_events(self._services.audit, audit_filter(filters, self._now()))

    def retention(self) -> Json:
        """How long records stay."""
        return retention_view(self._services.retention.plan(), self._services.settings.retention)

    def sweep(self, force: bool) -> Json:
        """Deletes what is due."""
        self._drain()
        return swept_view(self._services.retention.sweep(force=force, most_batches=BATCHES_PER_CALL))

    def holds(self) -> list[Json]:
        """Legal holds in force."""
        return [hold_view(hold) for hold in self._services.retention.holds()]

    def hold(self, said: Json) -> Json:
        """Puts one on."""
        return hold_view(self._services.retention.hold(**read_hold(said, self._now())))

    def release(self, hold_id: str) -> Json:
        """Ends one."""
        return hold_view(self._services.retention.release(hold_id))

    def erase(self, subject: str, dry_run: bool) -> Json:
        """Deletes what is stored about a subject."""
        self._drain()
        return erase(self._services.retention, subject, dry_run)

    def close(self) -> None:
        """Closes the stores."""
        self._services.close()

    def _trusted(self) -> frozenset[str]:
        return trusted_ids(self._services.settings.models.trusted_signers)

    def _effective(self) -> None:
        """Waits until every worker of a server on this folder answers by the change, for a bounded time."""
        if not self._folder.locked() or not self._folder.board.exists():
            return
        board = Board(self._folder.board)
        board.wait_applied(self._services.key_store.version(), EFFECTIVE_WITHIN_S)
        board.close()

    def _drain(self) -> None:
        """Brings in all that a server that is gone left in the spool, for as long as that brings something; what stays
        is said, since the answer lacks it. A running server does so itself."""
        if self._folder.locked():
            return
        left = spool_bytes(self._folder.spool)
        with progress("Storing the spool", left, in_bytes=True, quiet=left < LARGE_SPOOL_BYTES) as bar:

            def moved() -> None:
                nonlocal left
                before, left = left, spool_bytes(self._folder.spool)
                bar(before - left)

            try:
                while self._services.drain(moved) and spool_bytes(self._folder.spool):
                    pass  # each call ends after a bounded time
            except ConflictError:  # a server started meanwhile
                return
        if left := spool_bytes(self._folder.spool):
            typer.secho(f"warning: {size_text(left)} of the spool could not be stored and is missing here", err=True)

    def _log(self, filters: Mapping[str, str]) -> RecordLog:
        """The live log, or with it the archive."""
        if not filters.get("with_archive"):
            return self._services.log
        from modelyard.storage.archive.log import WholeLog
        from modelyard.storage.archive.places import open_place

        settings = self._services.settings
        if settings.retention.archive_url is None:
            raise SettingsError(
                "setting_invalid", "There is no archive: `retention.archive_url` is not set.",
                field="retention.archive_url", expected="a folder, or s3://bucket/prefix",
            )  # fmt: skip
        return WholeLog(self._services.log, open_place(settings.retention.archive_url, settings.artifacts))

    def _now(self) -> float:
        return self._services.clock.now()
