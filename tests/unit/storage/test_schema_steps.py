"""Steps that add and steps that remove: what runs when, and which programs a database lets in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from modelyard.core.errors import ModelyardError, SettingsError
from modelyard.storage.sql import schema, upgrade
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.upgrade import migrate, standing, steps, stored_revision, upgrade_to_head

ADD, REMOVE, MORE = "9001", "9002", "9003"
_STEP = '''"""{says}

Revision {revision}.
"""

from alembic import op

revision = "{revision}"
down_revision = "{before}"
phase = "{phase}"


def upgrade():
    op.execute("{statement}")
'''

Release = Callable[[str], None]


@pytest.fixture(autouse=True)
def quiet(fresh_logging: None) -> None:
    """Events go nowhere."""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty one."""
    url = sqlite_url(tmp_path / "db") if request.param == "sqlite" else request.getfixturevalue("postgres").empty()
    opened = Database(url, 5.0)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Makes this program one whose newest schema is that of the number."""
    shutil.copytree(upgrade.MIGRATIONS, tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    today = schema.HEAD
    made = [
        (ADD, today, "pre", "ALTER TABLE models ADD COLUMN fresh TEXT"),
        (REMOVE, ADD, "post", "DROP TABLE retention_state"),
        (MORE, REMOVE, "pre", "ALTER TABLE models ADD COLUMN fresher TEXT"),
    ]

    def become(head: str) -> None:
        folder = tmp_path / f"until-{head}"
        shutil.copytree(tmp_path / "migrations", folder)
        for revision, before, phase, statement in made:
            if revision <= head:
                says = f"{'Adds' if phase == 'pre' else 'Removes'} something."
                content = _STEP.format(says=says, revision=revision, before=before, phase=phase, statement=statement)
                (folder / "versions" / f"{revision}_step.py").write_text(content)
        monkeypatch.setattr(upgrade, "MIGRATIONS", folder)
        monkeypatch.setattr(schema, "HEAD", head)

    return become


def versions(database: Database) -> tuple[str | None, str | None]:
    """`schema_revision`, `alembic_version`."""
    with database.read() as connection:
        return stored_revision(connection), connection.scalar(text("SELECT version_num FROM alembic_version"))


def columns(database: Database) -> set[str]:
    """Those of `models`."""
    with database.read() as connection:
        return {str(column["name"]) for column in inspect(connection).get_columns("models")}


def test_each_revision_says_what_it_is() -> None:
    """`phase = "pre"` or `"post"` in each, in a chain that ends with HEAD."""
    found = list((upgrade.MIGRATIONS / "versions").glob("*.py"))
    assert all('\nphase = "pre"\n' in path.read_text() or '\nphase = "post"\n' in path.read_text() for path in found)
    assert [step.revision for step in steps()] == sorted(path.name[:4] for path in found)
    assert steps()[-1].revision == schema.HEAD


def test_adding_keeps_the_old_program_in(database: Database, release: Release) -> None:
    """After `pre` the release before starts as ever, without touching anything, and so does the new one; after `post`
    the release before is refused."""
    old = schema.HEAD
    upgrade_to_head(database)
    release(ADD)
    assert [step.revision for step in migrate(database, "pre")] == [ADD]
    assert versions(database) == (ADD, upgrade.FIRST_FLOOR)
    release(REMOVE)
    upgrade_to_head(database, at_start="pre")
    assert versions(database) == (ADD, upgrade.FIRST_FLOOR)
    release(old)
    upgrade_to_head(database)
    assert versions(database) == (ADD, upgrade.FIRST_FLOOR)
    with pytest.raises(SettingsError, match="a newer one wrote it"):
        upgrade.check_current(database)  # who reads whole tables must know all of their columns
    release_again(REMOVE, release)
    assert [step.revision for step in migrate(database, "post")] == [REMOVE]
    assert versions(database) == (REMOVE, REMOVE)
    upgrade_to_head(database)
    release_again(ADD, release)
    with pytest.raises(SettingsError) as caught:
        upgrade_to_head(database)
    assert (caught.value.code, caught.value.detail["got"]) == ("data_folder_unusable", REMOVE)


def release_again(head: str, release: Release) -> None:
    """A number for the second time."""
    folder = upgrade.MIGRATIONS.parent / f"until-{head}"
    if folder.exists():
        shutil.rmtree(folder)
    release(head)


def test_a_start_does_what_the_setting_lets_it(database: Database, release: Release) -> None:
    """`off` refuses and changes nothing; `pre` adds; `auto` also removes on SQLite, where no other program runs."""
    upgrade_to_head(database)
    before = versions(database)
    release(REMOVE)
    with pytest.raises(SettingsError) as caught:
        upgrade_to_head(database, at_start="off")
    assert (caught.value.code, "modelyard migrate pre" in caught.value.message) == ("schema_outdated", True)
    assert versions(database) == before
    upgrade_to_head(database, at_start="pre")
    assert versions(database)[0] == ADD
    assert "fresh" in columns(database)
    upgrade_to_head(database, at_start="off")  # what it needs is there
    upgrade_to_head(database)
    assert versions(database)[0] == (REMOVE if database.dialect.__class__.__name__ == "SQLite" else ADD)


def test_an_addition_behind_a_removal_waits_for_it(database: Database, release: Release) -> None:
    """Whoever skips a release and never removed is told so; `post` does all in one go."""
    upgrade_to_head(database)
    release(MORE)
    with pytest.raises(SettingsError) as caught:
        migrate(database, "pre")
    assert (caught.value.code, "migrate post" in caught.value.message) == ("schema_outdated", True)
    with database.read() as connection:
        assert standing(connection).blocked
    assert [step.revision for step in migrate(database, "post")] == [ADD, REMOVE, MORE]
    assert versions(database) == (MORE, REMOVE)
    assert migrate(database, "post") == ()


def test_an_empty_database_gets_all_of_it(database: Database, release: Release) -> None:
    """Nobody uses it yet: nothing waits. With `off` it stays empty."""
    release(REMOVE)
    with pytest.raises(SettingsError):
        upgrade_to_head(database, at_start="off")
    upgrade_to_head(database, at_start="pre")
    assert versions(database) == (REMOVE, REMOVE)


def test_a_step_that_fails_leaves_nothing(database: Database, release: Release) -> None:
    """All steps of a run are one transaction."""
    upgrade_to_head(database)
    before = versions(database)
    release(MORE)
    broken = upgrade.MIGRATIONS / "versions" / f"{MORE}_step.py"
    broken.write_text(broken.read_text().replace("ALTER TABLE models", "ALTER TABLE nothing"))
    with pytest.raises(ModelyardError):
        migrate(database, "post")
    assert versions(database) == before
    assert "fresh" not in columns(database)
