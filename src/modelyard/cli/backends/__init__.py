"""Where a command works: on a data folder, or with a server. The same methods, the same JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from modelyard.core.errors import AuthenticationError, CommandError

Json = dict[str, Any]
Progress = Callable[[int], None]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Backend(Protocol):
    """What commands ask for; answers are the JSON of the management routes. Raises ModelyardError."""

    def create_key(self, client: str, scopes: Sequence[str], models: Sequence[str], rate: str | None,
                   expires: str | None, bounds: Mapping[str, Any] = NOTHING) -> Json:  # fmt: skip
        """Issues a key; `key` holds its text, this once. `bounds`: the client's `quota`, `concurrency`,
        `client_models`, those that are given."""

    def keys(self, selection: Mapping[str, str] = NOTHING) -> list[Json]:
        """Keys, newest first: all, or those of a `client`, `unused_since`, `created_before`."""

    def change_key(self, key_id: str, given: Mapping[str, Any]) -> Json:
        """Changes a key's `models`, its client's `rate`, `quota`, `concurrency`, `client_models`; what is absent is
        kept, None takes a bound away."""

    def rotate_key(self, key_id: str, overlap: str) -> Json:
        """Issues a successor; `key` holds its text, this once. The old key ends after `overlap`."""

    def revoke_key(self, key_id: str) -> Json:
        """Ends a key."""

    def revoke_keys(self, selection: Mapping[str, str], dry_run: bool) -> Json:
        """Ends the active keys of a selection, as `keys` takes it: `revoked`, those that ended, or would have."""

    def publish(self, model: str, source: Path, version: str | None, metrics: Json | None, example: Json | None,
                sent: Progress) -> Json:  # fmt: skip
        """Publishes a file or folder; `sent` is told of bytes on their way. `created` False: it was there."""

    def models(self) -> list[Json]:
        """All models, by name."""

    def model(self, name: str) -> Json:
        """One model with its versions."""

    def version(self, model: str, version: str) -> Json:
        """One version."""

    def revive(self, model: str, version: str) -> Json:
        """Loads a version again that was taken out as unhealthy; `revived` False: it was not out."""

    def traffic(self, endpoint: str) -> Json:
        """An endpoint's shares."""

    def set_traffic(self, endpoint: str, weights: Mapping[str, int], revision: int | None = None) -> Json:
        """Replaces them; ConflictError if the endpoint is not at `revision` any more (None: as it is now)."""

    def predictions(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> Json:
        """One page: `predictions`, `next_cursor`."""

    def count_predictions(self, filters: Mapping[str, str]) -> int:
        """How many match."""

    def prediction(self, prediction_id: str, raw: bool = False) -> Json:
        """One record; with `raw`, also what was `kept` of it undecoded."""

    def export_predictions(self, filters: Mapping[str, str], form: str) -> Iterator[bytes]:
        """All that match, as bytes in pieces."""

    def give_outcome(self, prediction_id: str, said: Json) -> Json:
        """Gives one outcome: `value`, `item`, `at`."""

    def give_outcomes(self, lines: bytes) -> Json:
        """Gives many, one JSON object a line."""

    def outcomes(self, prediction_id: str) -> Json:
        """All outcomes that a request's items were given."""

    def analytics(self, question: str, asked: Mapping[str, str]) -> Json:
        """Figures of the log: `requests`, `scores` or `comparison`, by the parameters of `GET /v1/analytics/…`."""

    def audit(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> Json:
        """One page of the audit log: `events`, `next_cursor`."""

    def audit_head(self) -> Json | None:
        """Its last event's `sequence` and `hash`, None without any."""

    def verify_audit(self, kept: Json | None) -> Json:
        """The check of its chain, and of a head that was `kept`: `sound`, `checked`, `head`, `problems`."""

    def export_audit(self, filters: Mapping[str, str]) -> Iterator[bytes]:
        """All events that match, as JSON Lines in pieces."""

    def retention(self) -> Json:
        """How long records stay, what is due, and why nothing leaves if that is so."""

    def sweep(self, force: bool) -> Json:
        """Deletes what is due; `more`: again."""

    def holds(self) -> list[Json]:
        """Legal holds in force."""

    def hold(self, said: Json) -> Json:
        """Puts one on: `reason`, and which records."""

    def release(self, hold_id: str) -> Json:
        """Ends one."""

    def erase(self, subject: str, dry_run: bool) -> Json:
        """Deletes what is stored about a subject; `more`: again."""

    def close(self) -> None:
        """Gives everything back."""


@contextmanager
def backend(data: Path | None, server: str | None, key: str | None) -> Iterator[Backend]:
    """The backend that the options and the environment name: --server, --data, MODELYARD_SERVER, and the settings
    (MODELYARD_DATA, the file of MODELYARD_CONFIG, the default folder), in this order."""
    chosen = _choose(data, server, key)
    try:
        yield chosen
    finally:
        chosen.close()


def _choose(data: Path | None, server: str | None, key: str | None) -> Backend:
    if data is not None and server is not None:
        raise CommandError("usage_invalid", "Give either --data or --server, not both.", field="--server")
    if server is None and data is None:
        server = os.environ.get("MODELYARD_SERVER") or None
    if server is not None:
        from modelyard.cli.backends.remote import RemoteBackend

        return RemoteBackend(server, given_key(key))
    from modelyard.cli.backends.local import LocalBackend

    return LocalBackend(data_folder(data))


def data_folder(data: Path | None) -> Path:
    """The data folder that the option names, else the settings, as a server that is started here takes it."""
    if data is not None:
        return data
    from modelyard.core.settings import load_settings

    return load_settings().data


def given_key(key: str | None) -> str | None:
    """The key that the option or the environment names."""
    return key or os.environ.get("MODELYARD_KEY") or None


def needed_key(key: str | None) -> str:
    """The key that the option or the environment names; AuthenticationError("key_missing")."""
    found = given_key(key)
    if found is None:
        raise AuthenticationError("key_missing", "This needs a key.", field="--key")
    return found


def running_server(data: Path | None, server: str | None) -> str:
    """The address of a server: the option's, else the one that runs on the data folder;
    CommandError("server_not_running")."""
    given = server or (os.environ.get("MODELYARD_SERVER") if data is None else None)
    if given:
        return given
    from modelyard.app.folder import DataFolder

    folder = DataFolder(data_folder(data))
    running = folder.running() if folder.locked() else None
    if running is None:
        raise CommandError(
            "server_not_running",
            f"No server runs on the data folder `{folder.path}`.",
            field="--server",
            expected="a running server, or --server URL",
        )
    if running.get("certificate"):  # whoever reads the folder trusts what its server made for itself
        os.environ["SSL_CERT_FILE"] = running["certificate"]
    return str(running["url"])
