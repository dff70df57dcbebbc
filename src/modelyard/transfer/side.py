"""What a copy is taken from and brought to: a data folder, a configuration file, or a database URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import URL

from modelyard.app.folder import DataFolder
from modelyard.core.errors import CommandError, SettingsError
from modelyard.core.settings import Settings, load_settings
from modelyard.storage.login.database import FIELD, IAM
from modelyard.storage.login.references import reference_of
from modelyard.storage.s3.location import Location
from modelyard.storage.sql import dialects

CONFIGURATION = ".toml"


class Side(NamedTuple):
    """One side of a copy. `folder` is its own data folder, None for a database URL: such a side is served with a data
    folder that the copy does not know, or with that of the other side."""

    settings: Settings
    folder: DataFolder | None

    @property
    def database_url(self) -> str:
        """Where its database is."""
        if self.settings.database.url is not None:
            return self.settings.database.url
        return dialects.sqlite_url(DataFolder(self.settings.data).database)

    @property
    def shown(self) -> str:
        """For people, without a password or an account's number."""
        place = str(self.settings.data) if self.settings.database.url is None else _shown(self.settings.database.url)
        bucket = self.settings.artifacts.url
        return place if bucket is None else f"{place} with {Location.parse(bucket).shown()}"


def sides(source: str, target: str, source_artifacts: str | None, target_artifacts: str | None) -> tuple[Side, Side]:
    """Both sides by what the command line says of them; SettingsError, CommandError("copy_same_side").

    A database URL without artifacts of its own shares those of the other side.
    """
    named = [(source, source_artifacts), (target, target_artifacts)]
    known = [None if "://" in text else _settings(text, bucket) for text, bucket in named]
    base = known[0] or known[1] or load_settings()
    found = []
    for (text, bucket), settings in zip(named, known, strict=True):
        if settings is None:
            found.append(Side(_at_url(base, text, bucket), None))
        else:
            found.append(Side(settings, DataFolder(settings.data)))
    if _place(found[0]) == _place(found[1]):
        raise same_side()
    return _apart(found[0], found[1])


def same_side() -> CommandError:
    """The refusal of a copy onto itself."""
    return CommandError("copy_same_side", "--from and --to name the same database.", field="--to")


def same_artifacts(source: Side, target: Side) -> bool:
    """Whether both keep the files of their versions in one place."""
    urls = source.settings.artifacts.url, target.settings.artifacts.url
    if urls == (None, None):
        return source.settings.data.absolute() == target.settings.data.absolute()
    return urls[0] == urls[1]


def _apart(source: Side, target: Side) -> tuple[Side, Side]:
    """A target that is served with the source's data folder has none of its own."""
    folders = source.folder, target.folder
    if folders[0] is not None and folders[1] is not None and folders[0].path == folders[1].path:
        return source, target._replace(folder=None)
    return source, target


def _settings(text: str, bucket: str | None) -> Settings:
    if text.endswith(CONFIGURATION):
        settings = _configured(Path(text))
        return settings if bucket is None else _with_bucket(settings, bucket)
    settings = load_settings(data=Path(text))
    own = settings.database.model_copy(update={"url": None})
    artifacts = settings.artifacts.model_copy(update={"url": None})
    settings = settings.model_copy(update={"database": own, "artifacts": artifacts})
    return settings if bucket is None else _with_bucket(settings, bucket)


def _at_url(base: Settings, url: str, bucket: str | None) -> Settings:
    parsed = _parsed(url)
    if parsed is not None and parsed.drivername != IAM:
        dialects.dialect_of(parsed)
    settings = base.model_copy(update={"database": base.database.model_copy(update={"url": url})})
    return settings if bucket is None else _with_bucket(settings, bucket)


def _with_bucket(settings: Settings, bucket: str) -> Settings:
    flags: dict[str, Any] = {"artifacts.url": bucket}
    checked = load_settings(**flags).artifacts.url
    return settings.model_copy(update={"artifacts": settings.artifacts.model_copy(update={"url": checked})})


def _configured(path: Path) -> Settings:
    with _environment():
        return load_settings(path)


@contextmanager
def _environment() -> Iterator[None]:
    """Loading a file names it in the environment, where the other side must not find it."""
    before = os.environ.get("MODELYARD_CONFIG")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("MODELYARD_CONFIG", None)
        else:
            os.environ["MODELYARD_CONFIG"] = before


def _parsed(url: str) -> URL | None:
    """Its parts; None for a reference to a secret, which only a connection reads."""
    return dialects.parse_url(url) if reference_of(url, FIELD) is None else None


def _shown(url: str) -> str:
    parsed = _parsed(url)
    return "a database that a secret names" if parsed is None else dialects.shown(parsed)


def _file(side: Side) -> Path | None:
    """The file of a SQLite database."""
    parsed = _parsed(side.database_url)
    is_file = parsed is not None and parsed.get_backend_name() == "sqlite"
    return Path(parsed.database or "") if parsed is not None and is_file else None


def _place(side: Side) -> str:
    """What tells two databases apart, as far as their addresses do."""
    file, parsed = _file(side), _parsed(side.database_url)
    if file is not None:
        return str(file.resolve())
    return (
        side.database_url if parsed is None else parsed.set(username=None, password=None, query={}).render_as_string()
    )


def check_there(side: Side) -> None:
    """SettingsError("data_folder_unusable") for a source that holds no database."""
    file = _file(side)
    if file is not None and not file.is_file():
        raise SettingsError(
            "data_folder_unusable", f"`{side.shown}` holds no database.", field="--from", got=side.shown
        )
