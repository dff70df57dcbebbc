"""What MySQL, MariaDB and PyMySQL refuse, in our words.

By error number (mariadb.com/kb/en/mariadb-error-codes); the text is never shown, as it holds hosts and users. Where
the client gave up by itself, the exception behind its error says why.
"""

from __future__ import annotations

import socket
import ssl

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.storage.sql.dialects.dialect import RETRY_AFTER_S

_LOGIN = "The database refuses the login: look at user, password and `ssl_mode` (it may want TLS) in `database.url`."
_NO_DATABASE = "The database server has no database of this name: make it, or change `database.url`."
_NO_ENTRY = "The database server does not let this machine in: look at the host of the user in `database.url` there."
_READ_ONLY = "The database is read-only: let `database.url` name the primary server."
_NO_TABLE = "The database lacks a table or column of ours: restore it from its backup, or let `database.url` name it."
_NO_RIGHT = "The database refuses its user this: grant the user in `database.url` all rights on its database."
_TLS = "The database server does not prove who it is: look at `ssl_mode` and `ssl_ca` in `database.url`."
_NO_TLS = "The database server speaks no TLS: switch it on there, or say another `ssl_mode` in `database.url`."
_ONLY_TLS = "The database server lets nobody in without TLS: say `ssl_mode=VERIFY_IDENTITY` in `database.url`."
_NO_HOST = "The database server's name is not known: look at the host in `database.url`."
_NOBODY = "Nobody answers at the database server's address: see whether it runs, and look at `database.url`."
_PLUGIN = (
    "The database server wants a kind of login that PyMySQL does not know: give the user in `database.url` another."
)
_FOREIGN = "The database has a table of a name that Modelyard needs: let `database.url` name one that is ours alone."
_BINLOG = "The database server logs statements, not rows: set its binlog_format to ROW or MIXED."
_SLOW = "The database server does not answer in time: see whether it runs (`database.busy_timeout_s` is the bound)."
_STOPPING = "The database server is starting or stopping."
_FULL = "The database server has no connection left: raise its max_connections, or run fewer workers."
_SPACE = "The database server has no space left."
_LOCKED = "The database is locked by another transaction (`database.busy_timeout_s` is the bound)."
_LONG = "The database took too long for a statement (`database.busy_timeout_s` bounds it)."
_LARGE = "A record is larger than the database server takes: raise its max_allowed_packet."
_GONE = "The database is not available: the connection to it failed."

_NUMBERS = {
    _LOGIN: (1045, 1698, 1862, 3118),
    _NO_DATABASE: (1049,),
    _NO_ENTRY: (1129, 1130),
    _READ_ONLY: (1290, 1792, 1836),
    _NO_TABLE: (1054, 1146, 1932),
    _NO_RIGHT: (1044, 1142, 1143, 1227, 1370),
    _NO_TLS: (2026,),
    _ONLY_TLS: (3159,),
    _PLUGIN: (1251, 1524, 2059, 2061),
    _FOREIGN: (1050,),
    _BINLOG: (1665,),
    _STOPPING: (1053, 1077, 1079),
    _FULL: (1040, 1203, 1226),
    _SPACE: (1021, 1037, 1041, 1114),
    _LOCKED: (1205, 1213, 3572),
    _LONG: (1969, 3024),
    _LARGE: (1153, 2020),
}
_BY_NUMBER = {number: said for said, numbers in _NUMBERS.items() for number in numbers}
_CONSTRAINTS = (3819, 4025)
"""A CHECK that failed: MySQL's number, MariaDB's. PyMySQL takes them for the server's failures."""

_BY_CAUSE: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLError, _TLS),
    (socket.gaierror, _NO_HOST),
    (TimeoutError, _SLOW),
    (ConnectionRefusedError, _NOBODY),
    (FileNotFoundError, _NOBODY),
)
_SETTINGS = {_LOGIN, _NO_DATABASE, _NO_ENTRY, _READ_ONLY, _NO_TABLE, _NO_RIGHT, _TLS, _NO_TLS, _ONLY_TLS, _NO_HOST}
_SETTINGS |= {_PLUGIN, _FOREIGN, _BINLOG}
"""What only a change of settings, or of the server's, mends."""


def at_start(error: DBAPIError) -> ModelyardError:
    """A refusal while the program starts: SettingsError if trying again cannot help."""
    said = _said(error)
    if said in _SETTINGS:
        return SettingsError("setting_invalid", said, field="database.url")
    return later(error)


def later(error: DBAPIError) -> ModelyardError:
    """A refusal while the program runs."""
    said = _said(error)
    if said is None:
        return InternalError("internal", "The database refused a statement.")
    return _unavailable(said)


def locked() -> UnavailableError:
    """Another transaction, or another host's upgrade, did not end in time."""
    return _unavailable(_LOCKED)


def too_large() -> UnavailableError:
    """The server would end the connection rather than take this statement."""
    return _unavailable(_LARGE)


def foreign_tables() -> SettingsError:
    """Somebody else's tables have our names."""
    return SettingsError("setting_invalid", _FOREIGN, field="database.url")


def number_of(error: BaseException | None) -> int | None:
    """The error number of a driver's exception."""
    first = error.args[0] if error is not None and error.args else None
    return first if isinstance(first, int) else None


def _unavailable(said: str) -> UnavailableError:
    return UnavailableError("store_unavailable", said, retry_after_s=RETRY_AFTER_S)


def _said(error: DBAPIError) -> str | None:
    """Our sentence; None where the fault is a statement of ours."""
    number = number_of(error.orig)
    if number is not None and (known := _BY_NUMBER.get(number)):
        return known
    if number in _CONSTRAINTS or isinstance(error, IntegrityError | DataError | ProgrammingError):
        return None
    cause = getattr(error.orig, "original_exception", None) or (error.orig and error.orig.__context__)
    return next((said for kind, said in _BY_CAUSE if isinstance(cause, kind)), _GONE)
