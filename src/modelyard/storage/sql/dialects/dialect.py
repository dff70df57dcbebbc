"""What a database must be able to do for us, and the kinds of transactions."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Engine, Insert, Table
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from modelyard.core.errors import ModelyardError, SettingsError

KIND = "modelyard_kind"
"""Name of the execution option that says of which kind a connection's next transaction is."""

RETRY_AFTER_S = 1.0

Rows = Sequence[tuple[Any, ...]]
Append = Callable[[Connection, Rows], int]
"""Inserts rows whose primary key is not taken; how many those were."""


class Kind(Enum):
    """What a transaction is for, and whom it keeps out."""

    READ = "read"
    """Sees one state, writes nothing, waits for nobody."""
    SURVEY = "survey"
    """The same, of which a statement may look at much of the log, and takes its time."""
    MOMENT = "moment"
    """Sees one state for as long as the caller likes, who does other things between its statements."""
    WRITE = "write"
    """Alone among those that write, from its begin on; beside those that append."""
    WRITE_ALL = "write_all"
    """Alone, also among those that append."""
    APPEND = "append"
    """Adds what no other transaction reads first; beside others of its kind."""
    RESHAPE = "reshape"
    """Makes or drops days of the log, where each such statement commits itself; beside one that keeps others out."""
    UPGRADE = "upgrade"
    """Changes the schema: alone among those of its kind. It must not expect any table."""

    @property
    def reads(self) -> bool:
        """Whether it writes nothing."""
        return self in (Kind.READ, Kind.SURVEY, Kind.MOMENT)


class Dialect(Protocol):
    """One kind of database."""

    def engine(self, url: URL, busy_timeout_s: float) -> Engine:
        """An engine that begins transactions of the kind that the option KIND says; SettingsError for a URL that
        names no such database."""

    def prepare(self, engine: Engine, busy_timeout_s: float) -> None:
        """Makes the database ready for transactions; SettingsError, or UnavailableError("store_unavailable")."""

    def breathe_often(self, engine: Engine, breathe: Callable[[], object]) -> None:
        """Has `breathe` called again and again while a statement keeps a core of this process."""

    def forget_past(self, engine: Engine) -> None:
        """Has what was deleted leave the database's own journal, as far as that can be done now."""

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves out rows whose primary key is taken."""

    def append(self, table: Table, columns: Sequence[str]) -> Append:
        """The quickest way to insert many rows, tuples in the order of `columns`."""

    def refusal(self, error: DBAPIError) -> ModelyardError:
        """A failure in our words."""

    @property
    def now(self) -> ColumnElement[Any]:
        """The database's own clock, UNIX seconds."""

    @property
    def prediction_log_views(self) -> dict[int, str]:
        """The statements that make the view for BI tools, by the number of its form: names and meanings are alike."""


def wrong_url(message: str, got: str | None = None) -> SettingsError:
    """`database.url` says something that no dialect can use; `got` must not hold a password."""
    detail: dict[str, Any] = {} if got is None else {"got": got}
    return SettingsError(
        "setting_invalid",
        message,
        field="database.url",
        expected="sqlite:///path/to/file.db, postgresql://user@host/database or mysql://user@host/database",
        example="sqlite:////var/lib/modelyard/modelyard.db",
        **detail,
    )


def shown(url: URL) -> str:
    """A URL for people: without its password, and without its options, which may be one (`?password=`)."""
    return url.set(query={}).render_as_string(hide_password=True)


def is_loopback(host: str) -> bool:
    """Whether this is an address of this machine that no other reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
