"""Days that leave go to the archive first (DATA-3, DATA-4, P13): each record once, whatever is killed in between, read
together with the live ones, and reached by a deletion by subject."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from modelyard.audit.ports import AuditFilter
from modelyard.core.errors import ConflictError, UnavailableError
from modelyard.core.settings import ArtifactsSettings, RetentionSettings
from modelyard.journal.ports import Outcome, RecordFilter, SpoolPosition
from modelyard.retention.archiving import Archiver
from modelyard.retention.desk import RetentionDesk
from modelyard.retention.ports import Archive, Archived, Hold
from modelyard.retention.sweep import DAY_S, LEASE, LEASE_S, Sweeper
from modelyard.storage.archive.files import ParquetArchive
from modelyard.storage.archive.log import WholeLog
from modelyard.storage.archive.places import PARTIAL, Place, open_place
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, memory_stores, prediction_record
from modelyard.testing.analytics.archive import MemoryArchive
from objectstore.emulator import Emulator

END = SpoolPosition("f", 1)
NOW = 1_700_006_400.0 + 5 * 3600
EVERYTHING = RecordFilter()
COUNT = 60
MOST = 1000


class Yard:
    """Sixty records, one every four hours until now, of two endpoints and three subjects; five days stay."""

    def __init__(self, stores: Stores, archive: Archive) -> None:
        self.stores, self.archive, self.clock = stores, archive, FakeClock(NOW)
        records = [
            prediction_record(
                f"p{n:03}", NOW - 4 * 3600 * n, endpoint=f"e{n % 2}", subject=f"s{n % 3}", total_us=n,
                status=400 if n % 10 == 9 else 200,
            )
            for n in range(COUNT)
        ]  # fmt: skip
        stores.sink.store(records, END)
        stores.outcomes.put([Outcome("p059", 0, "good", NOW, "acme", "k")], NOW)
        self.settings = RetentionSettings(days=4, batch=2, max_share=1)

    @property
    def desk(self) -> RetentionDesk:
        stores = self.stores
        assert stores.leaving is not None
        archiver = Archiver(stores.leaving, self.archive, self.settings.batch)
        sweeper = Sweeper(stores.retention, stores.leases, self.settings, self.clock, archiver=archiver)
        return RetentionDesk(sweeper, stores.holds, stores.erasures, len, self.clock, self.archive, stores.leases)

    def live(self) -> list[str]:
        return [one["id"] for one in self.stores.log.page(EVERYTHING, MOST, None).records]

    def certificates(self) -> list[dict[str, Any]]:
        return [one.after for one in self.stores.audit.page(AuditFilter(action="retention:delete"), 99, None).events]


@pytest.fixture(params=["memory", "folder", "bucket"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An empty archive of each kind."""
    if request.param == "memory":
        return MemoryArchive()
    if request.param == "folder":
        return ParquetArchive(open_place(str(tmp_path / "archive"), ArtifactsSettings()))
    return ParquetArchive(bucket(request.getfixturevalue("emulator"), monkeypatch, tmp_path.name))


def bucket(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, name: str) -> Place:
    """A fresh prefix of a bucket."""
    if "archive-yard" not in {one["Name"] for one in emulator.client.list_buckets()["Buckets"]}:
        emulator.client.create_bucket(Bucket="archive-yard")
    for variable, text in (("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(variable, text)
    prefix = "".join(c for c in name if c.isalnum())
    settings = ArtifactsSettings(endpoint_url=emulator.url, region="us-east-1")
    return open_place(f"s3://archive-yard/{prefix}", settings)


@pytest.fixture
def folder_yard(stores: Stores, tmp_path: Path) -> Yard:
    return Yard(stores, ParquetArchive(open_place(str(tmp_path / "archive"), ArtifactsSettings())))


def archived_ids(archive: Archive) -> list[str]:
    if isinstance(archive, MemoryArchive):
        return sorted(one["id"] for rows in archive.files.values() for one in rows)
    assert isinstance(archive, ParquetArchive)
    files = (archive.place.read(name) for name in archive.place.names())
    return sorted(one for file in files for one in pq.read_table(io.BytesIO(file)).column("id").to_pylist())


def test_what_leaves_is_in_the_archive_once(archive: Archive) -> None:
    """Every record is live or archived, whole days at a time; certificates name the files and sum up; a second sweep
    finds nothing."""
    yard = Yard(memory_stores(), archive)
    swept = yard.desk.sweep(force=True)
    assert swept.archived == swept.predictions > 20
    gone = archived_ids(archive)
    assert sorted([*yard.live(), *gone]) == [f"p{n:03}" for n in range(COUNT)]
    assert len(gone) == swept.archived
    first = yard.stores.log.get(yard.live()[-1])["time"]
    assert first >= first[:10] + "T00", "days leave whole"
    certificates = yard.certificates()
    assert sum(one["predictions"] for one in certificates) == swept.archived
    assert all(one["archived"].startswith("day=20") for one in certificates)
    assert yard.desk.sweep(force=True).predictions == 0


@pytest.mark.parametrize("died", ["before the file", "after the file", "while deleting"])
def test_a_kill_in_between_loses_and_doubles_nothing(folder_yard: Yard, died: str) -> None:
    """A sweep that dies at any point is done again: every id is in the archive once, none twice; and in between a
    reader of both takes each id once."""
    yard = folder_yard
    assert isinstance(yard.archive, ParquetArchive)
    whole = WholeLog(yard.stores.log, yard.archive.place)
    before = [one["id"] for one in whole.page(EVERYTHING, MOST, None).records]
    deletes = 0

    class Dying(ParquetArchive):
        def write(self, *asked: Any) -> Archived:
            if died == "before the file":
                raise KeyboardInterrupt
            made = super().write(*asked)
            if died == "after the file":
                raise KeyboardInterrupt
            return made

    yard.archive = Dying(yard.archive.place)
    desk = yard.desk
    if died == "while deleting":
        assert yard.stores.leaving is not None
        real = yard.stores.leaving.delete_archived

        def delete(*asked: Any) -> Any:
            nonlocal deletes
            deletes += 1
            if deletes == 4:  # in the middle of a file
                raise KeyboardInterrupt
            return real(*asked)

        object.__setattr__(yard.stores.leaving, "delete_archived", delete)
    with pytest.raises(KeyboardInterrupt):
        desk.sweep(force=True)
    assert [one["id"] for one in whole.page(EVERYTHING, MOST, None).records] == before
    assert whole.count(EVERYTHING) == COUNT
    if died == "while deleting":
        object.__setattr__(yard.stores.leaving, "delete_archived", real)
    yard.archive = ParquetArchive(yard.archive.place)
    yard.desk.sweep(force=True)
    gone = archived_ids(yard.archive)
    assert len(gone) == len(set(gone))
    assert sorted([*yard.live(), *gone]) == sorted(before)


QUESTIONS = [
    EVERYTHING,
    RecordFilter(endpoint="e1"),
    RecordFilter(subject="s2"),
    RecordFilter(status=4),
    RecordFilter(since=NOW - 8 * DAY_S, until=NOW - 3 * DAY_S),
    RecordFilter(items=True),
    RecordFilter(client="nobody"),
]


def test_both_are_read_as_one_log(folder_yard: Yard) -> None:
    """Pages of any size, counts, exports and single records of archive and live days together are those of before they
    left, outcomes too; held records in the middle of archived days as well."""
    yard = folder_yard
    yard.stores.holds.add(Hold("h", "a case", NOW, subject="s1", endpoint="e0"))
    before = {n: [*yard.stores.log.export(wanted, MOST)] for n, wanted in enumerate(QUESTIONS)}
    counts = [yard.stores.log.count(wanted) for wanted in QUESTIONS]
    oldest = yard.stores.log.get("p059")
    assert yard.desk.sweep(force=True).archived
    assert isinstance(yard.archive, ParquetArchive)
    whole = WholeLog(yard.stores.log, yard.archive.place)
    for number, wanted in enumerate(QUESTIONS):
        expected = [record for chunk in before[number] for record in chunk]
        assert [record for chunk in whole.export(wanted, 7) for record in chunk] == expected
        assert whole.count(wanted) == counts[number]
        for size in (25, MOST):
            found: list[dict[str, Any]] = []
            cursor = None
            while True:
                page = whole.page(wanted, size, cursor)
                assert len(page.records) <= size
                found += page.records
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == expected[::-1]
    assert whole.get("p059") == oldest
    assert oldest["outcomes"][0]["value"] == "good"


def test_a_subject_is_erased_from_files_too(archive: Archive) -> None:
    """Down to the bytes of the files; nobody else's records, and what a hold keeps stays; each file has its
    certificate, which does not name the subject."""
    yard = Yard(memory_stores(), archive)
    yard.desk.sweep(force=True)
    before = archived_ids(archive)
    mine = yard.desk.archived("s1")
    assert mine > 5
    held = yard.desk.hold("a case", subject="s1", endpoint="e0")
    kept = yard.desk.erase("s1").archived
    assert 0 < kept < mine
    yard.desk.release(held.id)
    done = yard.desk.erase("s1")
    assert done.archived == mine - kept
    assert yard.desk.archived("s1") == 0
    assert archived_ids(archive) == [one for one in before if int(one[1:]) % 3 != 1]
    said = [one for one in yard.certificates() if "quarantined" not in one and "outcomes" not in one]
    assert sum(one["predictions"] for one in said) == mine
    assert "s1" not in repr(said)
    if isinstance(archive, ParquetArchive):
        assert all(b"s1" not in archive.place.read(name) for name in archive.place.names())


def test_no_record_is_on_its_way_while_a_subject_is_erased(folder_yard: Yard) -> None:
    """A sweep that runs would carry a record past the deletion: the deletion waits for its end, and says so."""
    fence = folder_yard.stores.leases.acquire(LEASE, "somebody", 60.0)
    assert fence is not None
    with pytest.raises(ConflictError) as refused:
        folder_yard.desk.erase("s1")
    assert refused.value.code == "lease_held"
    folder_yard.stores.leases.release(fence)
    assert folder_yard.desk.erase("s1").predictions == COUNT // 3


class Stalled(ParquetArchive):
    """The archive of a host that stands still while it writes a file: before it asks whether it is still alone, or
    behind that. `meanwhile` happens then, once."""

    def __init__(self, place: Place, behind: bool, meanwhile: Callable[[], None]) -> None:
        super().__init__(place)
        self._behind = behind
        self._left = [meanwhile]

    def write(self, partition: Any, chunks: Any, known: Any, still_alone: Callable[[], None]) -> Archived:
        def stalled() -> None:
            if self._behind:
                still_alone()
            for meanwhile in [self._left.pop()] if self._left else []:
                meanwhile()
            if not self._behind:
                still_alone()

        return super().write(partition, chunks, known, stalled)


@pytest.mark.parametrize("behind", [False, True], ids=["before it asks", "behind that"])
@pytest.mark.parametrize("archive", ["folder", "bucket"], indirect=True)
def test_a_host_that_lost_its_lease_shows_no_file_of_an_erased_subject(archive: Archive, behind: bool) -> None:
    """S19 P13: its records are read, its file is written, and then it stands still for longer than its lease. A
    deletion by subject goes through meanwhile. The file never appears, nothing of the subject is anywhere, and the next
    sweep moves what is left, each record once."""
    assert isinstance(archive, ParquetArchive)
    yard = Yard(memory_stores(), archive)
    yard.stores.leases._clock = yard.clock  # type: ignore[attr-defined]

    def erased() -> None:
        yard.clock.advance(LEASE_S + 1)
        assert yard.desk.erase("s1").predictions == COUNT // 3

    stalled = Yard.__new__(Yard)
    stalled.__dict__ |= {**yard.__dict__, "archive": Stalled(archive.place, behind, erased)}
    with pytest.raises(ConflictError) as lost:
        stalled.desk.sweep(force=True)
    assert lost.value.code == "lease_lost"
    assert archive.place.names() == archive.place.names(kind=PARTIAL) == []
    assert yard.desk.sweep(force=True).archived > 10
    left = sorted([*yard.live(), *archived_ids(archive)])
    assert left == [f"p{n:03}" for n in range(COUNT) if n % 3 != 1]


@pytest.mark.parametrize("act", ["sweep", "erase"])
def test_what_a_kill_left_half_written_goes(folder_yard: Yard, tmp_path: Path, act: str) -> None:
    """S19: a file that a killed sweep was writing holds what records hold: the next sweep removes it, and so does a
    deletion by subject."""
    half = tmp_path / "archive" / "day=2023-11-01" / "endpoint=e0" / ".5a.partial"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"PAR1 s1")
    if act == "sweep":
        folder_yard.desk.sweep(force=True)
    else:
        folder_yard.desk.erase("s1")
    assert not half.exists()


def test_a_file_that_appears_during_a_deletion_is_looked_at(folder_yard: Yard) -> None:
    """S19: a copy in a bucket that was under way when its source was taken away may still arrive."""
    folder_yard.desk.sweep(force=True)
    archive = folder_yard.archive
    assert isinstance(archive, ParquetArchive)
    name = archive.place.names()[0]
    content = archive.place.read(name)
    looking = archive.erase("s1", lambda _record: False, lambda: None)
    next(looking)
    archive.place.write(name.replace("part-", "part-late-"), content, lambda: None)
    list(looking)
    assert archive.count("s1") == 0


def test_what_is_archived_is_looked_up_once_a_partition(
    folder_yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day may have hundreds of files: the ids that earlier sweeps left are read once, not again for each file."""
    monkeypatch.setattr("modelyard.storage.archive.files.PART_ROWS", 1)
    monkeypatch.setattr("modelyard.retention.archiving.CHUNK", 1)
    looked: list[Any] = []

    class Counting(ParquetArchive):
        def ids(self, partition: Any) -> set[str]:
            looked.append(partition)
            return super().ids(partition)

    assert isinstance(folder_yard.archive, ParquetArchive)
    folder_yard.archive = Counting(folder_yard.archive.place)
    folder_yard.desk.sweep(force=True)
    partitions = {name.rpartition("/")[0] for name in folder_yard.archive.place.names()}
    assert len(folder_yard.archive.place.names()) > 2 * len(partitions)
    assert len(looked) == len(partitions)


def test_an_archive_that_is_away_keeps_everything(tmp_path: Path) -> None:
    """Nothing leaves the database that no file holds; the reason is said without a vendor's words."""
    folder_yard = Yard(memory_stores(), ParquetArchive(open_place(str(tmp_path / "archive"), ArtifactsSettings())))
    (tmp_path / "archive").write_text("not a folder")
    with pytest.raises(UnavailableError) as refused:
        folder_yard.desk.sweep(force=True)
    assert refused.value.detail["field"] == "retention.archive_url"
    assert len(folder_yard.live()) == COUNT
    assert folder_yard.certificates() == []


def test_duckdb_and_pandas_read_it_without_us(tmp_path: Path) -> None:
    """The folder is a Hive-partitioned data set: `day` and `endpoint` are columns, times are timestamps, numbers are
    numbers, JSON is text."""
    folder_yard = Yard(memory_stores(), ParquetArchive(open_place(str(tmp_path / "archive"), ArtifactsSettings())))
    folder_yard.desk.sweep(force=True)
    gone = archived_ids(folder_yard.archive)
    with duckdb.connect() as connection:
        path = f"{tmp_path}/archive/*/*/*.parquet"
        rows = connection.execute(
            "SELECT endpoint, count(*), max(total_us) FROM read_parquet($path, hive_partitioning = true) "
            "WHERE day < '2023-11-09' GROUP BY ALL ORDER BY 1",
            {"path": path},
        ).fetchall()
    assert [name for name, _, _ in rows] == ["e0", "e1"]
    frame = pd.read_parquet(tmp_path / "archive")
    assert sorted(frame["id"]) == gone
    assert str(frame["time"].dtype).startswith("datetime64")
    assert frame["outputs"].iloc[0].startswith("{")
