"""What PostgreSQL and libpq refuse, in our words.

By SQLSTATE where there is one. A connection that is refused has none in libpq's answer: there the text is searched
for what it says in any version, and never shown, as it holds hosts and users.
"""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.storage.sql.dialects.dialect import RETRY_AFTER_S

_LOGIN = "The database refuses the login: look at user and password in `database.url`."
_NO_DATABASE = "The database server has no database of this name: make it, or change `database.url`."
_NO_ENTRY = "The database server does not let this machine in: look at its pg_hba.conf, and at TLS in `database.url`."
_READ_ONLY = "The database is read-only: let `database.url` name the primary server."
_NO_PRIMARY = "None of the servers in `database.url` takes writes now."
_NO_TABLE = "The database lacks a table or column of ours: restore it from its backup, or let `database.url` name it."
_NO_RIGHT = "The database refuses its user this statement: make the user in `database.url` the owner of its tables."
_TLS = "The database server does not prove who it is: look at `sslmode` and `sslrootcert` in `database.url`."
_AUTHORITY = (
    "The database server's certificate is signed by an authority that is not trusted here: "
    "let `sslrootcert` in `database.url` name the file of the authority."
)
_OTHER_NAME = "The database server's certificate is for another name: let `database.url` name the host as it does."
_OUT_OF_DATE = "The database server's certificate has expired or is not valid yet: renew it, and look at both clocks."
_NO_ROOT = "The file of `sslrootcert` in `database.url` cannot be read, or holds no certificate."
_NO_TLS = "The database server speaks no TLS: switch it on there, or say another `sslmode` in `database.url`."
_NO_HOST = "The database server's name is not known: look at the host in `database.url`."
_NOBODY = "Nobody answers at the database server's address: see whether it runs, and look at `database.url`."
_SLOW = "The database server does not answer in time: see whether it runs (`database.busy_timeout_s` is the bound)."
_OPTION = "The setting `database.url` has an option that PostgreSQL's client library does not know."
_STARTING = "The database server is starting, stopping or recovering."
_FULL = "The database server has no connection left: raise its max_connections, or run fewer workers."
_SPACE = "The database server has no space left."
_LOCKED = "The database is locked by another transaction (`database.busy_timeout_s` is the bound)."
_LONG = "The database took too long for a statement (`database.busy_timeout_s` bounds it)."
_GONE = "The database is not available: the connection to it failed."

_BY_STATE = {
    "28P01": _LOGIN,
    "28000": _LOGIN,
    "3D000": _NO_DATABASE,
    "25006": _READ_ONLY,
    "42P01": _NO_TABLE,
    "42703": _NO_TABLE,
    "3F000": _NO_TABLE,
    "42501": _NO_RIGHT,
    "57P01": _STARTING,
    "57P02": _STARTING,
    "57P03": _STARTING,
    "53300": _FULL,
    "53100": _SPACE,
    "55P03": _LOCKED,
    "40001": _LOCKED,
    "40P01": _LOCKED,
    "57014": _LONG,
}
_BY_TEXT = (
    ("session is read-only", _NO_PRIMARY),
    ("no pg_hba.conf entry", _NO_ENTRY),
    ("pg_hba.conf rejects", _NO_ENTRY),
    ("authentication failed", _LOGIN),
    ("no password supplied", _LOGIN),
    ('role "', _LOGIN),
    ("database system is", _STARTING),
    ("connection slots", _FULL),
    ("too many c", _FULL),
    ("invalid sslmode value", _OPTION),
    ("does not support SSL", _NO_TLS),
    ("does not match host name", _OTHER_NAME),
    ("certificate out of date", _OUT_OF_DATE),
    ("root certificate file", _NO_ROOT),
    ("certificate verify failed", _AUTHORITY),
    ("certificate", _TLS),
    ("SSL", _TLS),
    ("could not translate host name", _NO_HOST),
    ("failed to resolve host", _NO_HOST),
    ("invalid connection option", _OPTION),
    ("invalid URI query parameter", _OPTION),
    ('database "', _NO_DATABASE),
    ("timeout expired", _SLOW),
    ("Connection refused", _NOBODY),
    ("No such file or directory", _NOBODY),
)
"""The first that is found; `role "x" does not exist` and `database "x" does not exist` come by their nouns."""

_SETTINGS = {
    _LOGIN, _NO_DATABASE, _NO_ENTRY, _READ_ONLY, _NO_RIGHT, _NO_HOST, _OPTION, _NO_TABLE,
    _TLS, _NO_TLS, _AUTHORITY, _OTHER_NAME, _OUT_OF_DATE, _NO_ROOT,
}  # fmt: skip
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
    return UnavailableError("store_unavailable", said, retry_after_s=RETRY_AFTER_S)


def _said(error: DBAPIError) -> str | None:
    """Our sentence; None where the fault is a statement of ours."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None and (known := _BY_STATE.get(state)):
        return known
    if state is None:
        text = str(error.orig)
        if found := next((said for part, said in _BY_TEXT if part in text), None):
            return found
    if isinstance(error, IntegrityError | DataError | ProgrammingError):
        return None
    return _GONE
