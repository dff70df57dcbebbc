"""Everything that differs between databases, a module for each; the rest of the package is the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, Insert, Table, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from modelyard.storage.sql.dialects.dialect import Dialect, shown, wrong_url
from modelyard.storage.sql.dialects.mysql import MySQL
from modelyard.storage.sql.dialects.partitions import mysql as mysql_days
from modelyard.storage.sql.dialects.partitions import postgresql as postgresql_days
from modelyard.storage.sql.dialects.partitions.day import Day, day_of
from modelyard.storage.sql.dialects.postgresql import PostgreSQL
from modelyard.storage.sql.dialects.sqlite import SQLite, sqlite_url

__all__ = [
    "Day", "are_leaving", "days", "dialect_of", "drop_day", "insert_new", "make_days", "make_past_days",
    "parse_url", "prediction_log_view", "shown", "sqlite_url",
]  # fmt: skip

_DIALECTS: dict[str, Dialect] = {
    "sqlite": SQLite(), "postgresql": PostgreSQL(), "mysql": MySQL(), "mariadb": MySQL()
}  # fmt: skip


_MYSQL = ("mysql", "mariadb")
_KEPT_IN_DAYS: dict[str, Any] = {"postgresql": postgresql_days, **dict.fromkeys(_MYSQL, mysql_days)}


def parse_url(url: str) -> URL:
    """The parts of `database.url`; SettingsError("setting_invalid") if it is no URL."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise wrong_url("The setting `database.url` is no database URL.") from None


def dialect_of(url: URL) -> Dialect:
    """How to speak to this database; SettingsError("setting_invalid") for one that is not spoken."""
    known = _DIALECTS.get(url.get_backend_name())
    if known is None:
        raise wrong_url(
            "The setting `database.url` names none of SQLite, PostgreSQL, MySQL and MariaDB.",
            shown(url),
        )
    return known


def insert_new(connection: Connection, table: Table) -> Insert:
    """An INSERT that leaves out rows whose primary key is taken."""
    return _DIALECTS[connection.dialect.name].insert_new(table)


def days(connection: Connection) -> Sequence[Day]:
    """The days that the prediction log is kept in, oldest first; none where the database keeps all of it together."""
    kept = _KEPT_IN_DAYS.get(connection.dialect.name)
    return () if kept is None else kept.days(connection)


def make_days(connection: Connection, now_s: float) -> None:
    """Makes those of the days around now (UNIX seconds) that are missing."""
    if kept := _KEPT_IN_DAYS.get(connection.dialect.name):
        kept.make_days(connection, now_s)


def make_past_days(connection: Connection, wanted: Sequence[date]) -> None:
    """Makes days of which records are to come, before they do. MySQL has its days in their order and makes none in
    between: they join the first that there is."""
    if connection.dialect.name == "postgresql":
        postgresql_days.make(connection, [day_of(when) for when in wanted])


def drop_day(connection: Connection, day: Day) -> None:
    """Takes away all that is in one of `days`, with this transaction. Where a drop cannot be part of one, the day is
    leaving from its end on, and goes before the next transaction that keeps appends out."""
    _KEPT_IN_DAYS[connection.dialect.name].drop_day(connection, day)


def are_leaving(connection: Connection) -> bool:
    """Whether days are leaving in this way."""
    return connection.dialect.name in _MYSQL and mysql_days.are_leaving(connection)


def prediction_log_view(connection: Connection, revision: int) -> str:
    """The statement that makes the view for BI tools, in its form of this number (docs: reference, SQL view)."""
    return _DIALECTS[connection.dialect.name].prediction_log_views[revision]


def has_partial_indexes(connection: Connection) -> bool:
    """Whether an index may leave rows out; where it may not, an index over all rows takes its place, or none."""
    return connection.dialect.name != "mysql"


def leaps_in_subqueries(connection: Connection) -> bool:
    """Whether a subquery finds the next value of an indexed column by one step, also where the outer query names the
    value before."""
    return connection.dialect.name not in ("mysql", "mariadb")


def plans_each_day(connection: Connection) -> bool:
    """Whether a query of the log is planned for each day by itself: one query is then better than several, a model has
    an index of its own, and a subquery in FROM may use what stands before it."""
    return connection.dialect.name == "postgresql"
