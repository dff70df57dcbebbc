"""Data that an older program left is there after the upgrade."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from modelyard.journal.ports import RecordFilter
from modelyard.storage.prediction_row import to_row
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import sqlite_url
from modelyard.storage.sql.records.quarantine import SqlQuarantineLog
from modelyard.storage.sql.upgrade import MIGRATIONS, upgrade_to_head
from modelyard.testing import prediction_record


@pytest.mark.parametrize("raw", [None, b"\x00raw"])
def test_quarantined_records_of_before_can_be_listed(tmp_path: Path, raw: bytes | None) -> None:
    """What revision 0002 kept packed has its columns afterwards, and is shown as it was."""
    from alembic import command
    from alembic.config import Config

    database = Database(sqlite_url(tmp_path / "old.db"), 5.0)
    database.open()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    record = msgspec.structs.replace(prediction_record("p1", client="c", version="7", status=201), raw=raw)
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        packed = msgspec.msgpack.encode((record.header, *to_row(record)))
        insert = text("INSERT INTO quarantined_predictions VALUES ('p1', :digest, :record)")
        connection.execute(insert, {"digest": record.payload_sha256, "record": packed})
    upgrade_to_head(database)
    log = SqlQuarantineLog(database)
    (found,) = log.page(RecordFilter(client="c", version="7"), 10, None).records
    assert (found["id"], found["reason"], found["status"]) == ("p1", "id_taken", 201)
    assert found["raw_bytes"] == len(raw or b"")
    (kept,) = log.raw("p1")
    assert kept["record"]["inputs"] == record.inputs
    assert ("raw" in kept["record"]) is (raw is not None)
    database.close()
