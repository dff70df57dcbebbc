"""`modelyard analytics` on a data folder: tables, JSON, a picture."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cli_support import Run, parsed

from modelyard.core.errors import SettingsError
from modelyard.core.settings import Settings
from modelyard.journal.ports import SpoolPosition
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty predictions of the last two hours, of two versions."""
    stores = open_stores(Settings(), tmp_path / "data")
    now = time.time()
    made = [
        prediction_record(f"p{n}", now - 360 * n, version=str(1 + n % 2), outputs={"p": [[n / 20]], "label": ["good"]})
        for n in range(20)
    ]
    stores.sink.store(made, SpoolPosition("f", 1))
    stores.close()
    return tmp_path / "data"


def test_requests_are_counted(folder: Path, tmp_path: Path, run: Run) -> None:
    """By version and hour, with bars; JSON is what the server says; the picture is one."""
    shown = run("analytics", "requests", "--by", "version", "--interval", "hour")
    assert "█" in shown.stdout
    picture = tmp_path / "figures.png"
    found = parsed(run("analytics", "requests", "--by", "version", "--json", "--png", str(picture)))
    assert [(one["version"], one["requests"]) for one in found["groups"]] == [("1", 10), ("2", 10)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "no request" in run("analytics", "requests", "--model", "none").stdout


def test_scores_and_comparison(folder: Path, tmp_path: Path, run: Run) -> None:
    """Numbers as a small histogram, labels by their counts; two versions beside each other."""
    picture = tmp_path / "scores.png"
    shown = run("analytics", "scores", "tree", "--png", str(picture)).stdout
    assert "good: 10" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    compared = run("analytics", "compare", "tree", "1", "2").stdout
    assert "no difference that could not be chance" in compared
    assert parsed(run("analytics", "compare", "tree", "1", "2", "--json"))["model"] == "tree"


def test_archived_days_are_read_too(folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What left for the archive is listed, counted and exported with what is live, if one asks for it; without an
    archive the setting is named."""
    refused = run("predictions", "count", "--with-archive")
    assert isinstance(refused.exception, SettingsError)
    monkeypatch.setenv("MODELYARD_RETENTION__ARCHIVE_URL", str(tmp_path / "archive"))
    stores = open_stores(Settings(), folder)
    old = [prediction_record(f"old{n}", time.time() - 100 * 86_400 - n) for n in range(3)]
    stores.sink.store(old, SpoolPosition("f", 2))
    stores.close()
    swept = parsed(run("retention", "run", "--force", "--json"))
    assert (swept["archived"], swept["predictions"]) == (3, 3)
    assert parsed(run("predictions", "count", "--json"))["count"] == 20
    assert parsed(run("predictions", "count", "--with-archive", "--json"))["count"] == 23
    listed = parsed(run("predictions", "list", "--with-archive", "--limit", "100", "--json"))["predictions"]
    assert [one["id"] for one in listed][-3:] == ["old0", "old1", "old2"]
    run("predictions", "export", "--with-archive", "--out", str(tmp_path / "all.jsonl"))
    assert (tmp_path / "all.jsonl").read_bytes().count(b"\n") == 23
    assert list((tmp_path / "archive").rglob("*.parquet"))
