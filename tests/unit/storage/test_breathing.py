"""Long statements give way to whoever shares the core and the interpreter with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.app.services import open_services
from modelyard.core.settings import load_settings
from modelyard.storage.sql.open import open_stores

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT count(*) FROM n"
"""More than a million steps of SQLite's machine."""


@pytest.mark.parametrize("opened", ["stores", "services"])
def test_a_long_statement_breathes_again_and_again(opened: str, tmp_path: Path) -> None:
    """Whoever opens a SQLite database with `breathe` has it called about every 500 steps of a statement, in any
    thread: the workers' loop and the answers of their core go before a dashboard's question."""
    breaths: list[int] = []
    settings = load_settings(data=tmp_path)
    if opened == "stores":
        stores = open_stores(settings, tmp_path, breathe=lambda: breaths.append(1))
        database, close = stores.log._database, stores.close  # type: ignore[attr-defined]
    else:
        services = open_services(settings, breathe=lambda: breaths.append(1))
        database, close = services.log._database, services.close  # type: ignore[attr-defined]
    breaths.clear()
    with database.survey() as connection:
        assert connection.exec_driver_sql(LONG).scalar_one() == 100_000
    close()
    assert len(breaths) >= 500
