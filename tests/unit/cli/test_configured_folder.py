"""Every command that opens a data folder opens the one that a server started here would: that of the settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from test_help import ALL
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.journal.ports import SpoolPosition
from modelyard.retention.ports import Hold
from modelyard.storage.sql.open import open_stores
from modelyard.testing import key, prediction_record, version

STARTS = {"demo", "serve", "restore"}
"""They make a folder, or are a server."""
ASKED = {
    "publish": ("publish", "tree", "FILE"),
    "models list": ("models", "list"),
    "models show": ("models", "show", "tree"),
    "models timeline": ("models", "timeline", "tree"),
    "models revive": ("models", "revive", "tree", "1"),
    "traffic show": ("traffic", "show", "tree"),
    "traffic set": ("traffic", "set", "tree", "1=100"),
    "keys create": ("keys", "create", "globex"),
    "keys list": ("keys", "list"),
    "keys update": ("keys", "update", "k1", "--models", "tree"),
    "keys rotate": ("keys", "rotate", "k1"),
    "keys revoke": ("keys", "revoke", "k1"),
    "me": ("me", "--key", "mdy_x"),
    "predict": ("predict", "tree", "FILE", "--key", "mdy_x"),
    "predictions list": ("predictions", "list"),
    "predictions count": ("predictions", "count"),
    "predictions show": ("predictions", "show", "p1"),
    "predictions export": ("predictions", "export"),
    "predictions outcome": ("predictions", "outcome", "p1", "1"),
    "predictions outcomes": ("predictions", "outcomes", "FILE"),
    "analytics requests": ("analytics", "requests"),
    "analytics scores": ("analytics", "scores", "tree"),
    "analytics compare": ("analytics", "compare", "tree", "1", "1"),
    "audit list": ("audit", "list"),
    "audit verify": ("audit", "verify"),
    "audit export": ("audit", "export"),
    "retention show": ("retention", "show"),
    "retention run": ("retention", "run"),
    "retention hold": ("retention", "hold", "--reason", "a case", "--model", "tree"),
    "retention holds": ("retention", "holds"),
    "retention release": ("retention", "release", "h1"),
    "retention erase": ("retention", "erase", "--subject", "s1", "--dry-run"),
    "backup create": ("backup", "create", "--out", "OUT"),
    "migrate status": ("migrate", "status"),
    "migrate pre": ("migrate", "pre"),
    "migrate post": ("migrate", "post"),
    "doctor": ("doctor",),
}
SAID = {
    "models list": "tree", "models show": "stub", "traffic show": "100 %", "keys list": "acme", "me": "served",
    "predict": "served", "predictions list": "p1", "predictions count": "1", "predictions show": "p1",
    "predictions export": "p1", "audit list": "client:create", "audit verify": "is sound: 4 events",
    "audit export": "client:create", "retention holds": "h1", "migrate status": "nothing is pending",
    "doctor": "served",
}  # fmt: skip
"""What only the folder and the database of the settings make it say."""
WITH_DATA = {name for name, command in ALL if any(each.name == "data" for each in command.params)}


def test_all_of_them_are_tried() -> None:
    """A new command with `--data` belongs into the list."""
    assert set(ASKED) == WITH_DATA - STARTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder `served`, and its database `elsewhere.db` beside it."""
    place = tmp_path_factory.mktemp("made")
    settings = Settings(database=DatabaseSettings(url=f"sqlite:///{place / 'elsewhere.db'}"))
    stores = open_stores(settings, place / "served")
    client = stores.keys.ensure_client("acme", None, None, None)
    stores.keys.add(key(client.id, "k1"))
    stores.registry.add_version(version("tree", "1", b"1"))
    stores.holds.add(Hold("h1", "a case", 1.0, subject="nobody"))
    stores.sink.store([prediction_record("p1", model="tree")], SpoolPosition("f", 1))
    stores.close()
    return place


@pytest.fixture
def configured(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to work in. The configuration file names a data folder elsewhere, and a database that is not in it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "m.toml").write_text(
        f'data = "{tmp_path / "served"}"\n[database]\nurl = "sqlite:///{tmp_path / "elsewhere.db"}"\n'
    )
    monkeypatch.setenv("MODELYARD_CONFIG", str(tmp_path / "m.toml"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_folder_of_the_settings_is_the_one(configured: Path, name: str) -> None:
    """By MODELYARD_CONFIG: nothing is made in the folder's default place, and what is said is of the
    configured one."""
    file = configured.parent / "rows.json"
    file.write_text("[{}]")
    places: dict[str, str] = {"FILE": str(file), "OUT": str(configured.parent / "out.tar")}
    ended: Any = CliRunner().invoke(app, [places.get(word, word) for word in ASKED[name]])
    said = f"{ended.output} {ended.exception}"
    assert ended.exit_code != 2, said
    assert list(configured.iterdir()) == [], said
    assert SAID.get(name, "") in said
