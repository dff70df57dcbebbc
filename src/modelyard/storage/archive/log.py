"""Archived days beside the live ones: one log to read, through DuckDB.

A record may be in both for as long as a sweep takes, or until the next one after a kill; each id is given once, and
the live one counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from modelyard.core.errors import InvalidRequestError, NotFoundError, SettingsError
from modelyard.journal.items import decode_cursor, encode_cursor
from modelyard.journal.ports import RecordFilter, RecordLog, RecordPage
from modelyard.storage.archive.files import JSON
from modelyard.storage.archive.places import INSTALL, Place
from modelyard.storage.prediction_row import microseconds, status_range, time_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MEMORY_LIMIT = "1GB"
"""DuckDB spills to files beyond it."""
_NUMBERS = ("queue_us", "compute_us", "total_us")
_SIZES = ("request_bytes", "answer_bytes")
# Constants of ours alone are put together here; what callers say is bound.
_READ = """
SELECT epoch_us(time) AS at_us, id, request_id, client, key_id, endpoint, model, version, arm, status, code, rows,
       inputs, outputs, queue_us, compute_us, total_us, request_bytes, answer_bytes, flag, surface, subject, outcomes
FROM archive WHERE ($since IS NULL OR epoch_us(time) >= $since) AND ($until IS NULL OR epoch_us(time) < $until)
  AND ($model IS NULL OR model = $model) AND ($version IS NULL OR version = $version)
  AND ($client IS NULL OR client = $client) AND ($endpoint IS NULL OR endpoint = $endpoint)
  AND ($subject IS NULL OR subject = $subject) AND status BETWEEN $low AND $high
  AND (NOT $items OR rows > 0 OR status < 400)
"""
_ONCE = f"SELECT * FROM ({_READ}) QUALIFY row_number() OVER (PARTITION BY id) = 1"  # noqa: S608
_NEWEST = f"SELECT * FROM ({_ONCE}) WHERE (at_us, id) < ($at_us, $id) ORDER BY at_us DESC, id DESC LIMIT $most"  # noqa: S608
_OLDEST = f"SELECT * FROM ({_ONCE}) ORDER BY at_us, id"  # noqa: S608
_ITEMS = "CASE WHEN rows > 0 THEN rows WHEN status < 400 THEN 1 ELSE 0 END"
_COUNT = f"SELECT count(*), coalesce(sum({_ITEMS}), 0) FROM ({_ONCE})"  # noqa: S608
_AMONG = f"{_COUNT} WHERE id IN (SELECT unnest($ids))"
_LAST_US = 2**62
_YEAR_9999_S = 253_370_764_800.0


class WholeLog:
    """journal.ports.RecordLog over a live log and an archive. Filters by outcome are refused
    (InvalidRequestError("parameter_invalid")): archived outcomes are read with their records."""

    def __init__(self, live: RecordLog, place: Place) -> None:
        self._live = live
        self._place = place

    def page(self, filter: RecordFilter, limit: int, cursor: str | None) -> RecordPage:
        """One page, newest first."""
        at, prediction_id = (_LAST_US, "") if cursor is None else decode_cursor(cursor)
        live = self._live.page(filter, limit + 1, cursor)
        place = {"at_us": at, "id": prediction_id, "most": limit + 1}
        old = [_record(row) for row in self._rows(_NEWEST, filter, **place)]
        found = _once(heapq.merge(live.records, old, key=_place, reverse=True))
        shown = [record for record, _ in zip(found, range(limit + 1), strict=False)]
        following = encode_cursor(*_place(shown[limit - 1])) if len(shown) > limit else None
        return RecordPage(tuple(shown[:limit]), following)

    def count(self, filter: RecordFilter) -> int:
        """How many match."""
        column = int(filter.items)
        ((*archived,),) = self._rows(_COUNT, filter)
        both = 0
        if archived[0]:
            for chunk in self._live.export(filter, 5000):  # held records, and what a kill left
                if not self._overlaps(chunk):
                    break
                ((*found,),) = self._rows(_AMONG, filter, ids=[record["id"] for record in chunk])
                both += int(found[column])
        return self._live.count(filter) + int(archived[column]) - both

    def get(self, prediction_id: str) -> dict[str, Any]:
        """One record; NotFoundError("prediction_not_found")."""
        try:
            return self._live.get(prediction_id)
        except NotFoundError:
            for row in self._rows(_READ + " AND id = $id", RecordFilter(), id=prediction_id):
                return _record(row)
            raise

    def export(self, filter: RecordFilter, chunk: int) -> Iterator[list[dict[str, Any]]]:
        """All that match, oldest first."""
        live = (record for some in self._live.export(filter, chunk) for record in some)
        gathered: list[dict[str, Any]] = []
        for record in _once(heapq.merge(live, map(_record, self._rows(_OLDEST, filter)), key=_place)):
            gathered.append(record)
            if len(gathered) == chunk:
                yield gathered
                gathered = []
        if gathered:
            yield gathered

    def _overlaps(self, chunk: list[dict[str, Any]]) -> bool:
        """Whether a chunk of live records begins on an archived day or before."""
        days = [name.split("/")[0].removeprefix("day=") for name in self._place.names()]
        return bool(days) and str(chunk[0]["time"])[:10] <= max(days)

    def _rows(self, query: str, wanted: RecordFilter, **more: Any) -> Iterator[tuple[Any, ...]]:
        if wanted.outcome is not None:
            raise InvalidRequestError(
                "parameter_invalid", "Archived records cannot be found by their outcome.", field="outcome",
                expected="no filter by outcome, or the live log alone",
            )  # fmt: skip
        files = self._files(wanted)
        if not files:
            yield from [(0, 0)] if query in (_COUNT, _AMONG) else ()
            return
        connection = _connect()
        try:
            connection.register("archive", self._dataset(files))
            asked = {**_parameters(wanted), **more}
            found = connection.execute(query, {name: asked[name] for name in asked if f"${name}" in query})
            while rows := found.fetchmany(2000):
                yield from rows
        finally:
            connection.close()

    def _files(self, wanted: RecordFilter) -> list[str]:
        """Those of the days and the endpoint: the others stay closed."""
        first, last = _day(wanted.since), _day(wanted.until)
        found = []
        for name in self._place.names():
            day, endpoint = (part.partition("=")[2] for part in name.split("/")[:2])
            if (first is None or day >= first) and (last is None or day <= last):
                found += [name] if wanted.endpoint in (None, endpoint) else []
        return found

    def _dataset(self, files: list[str]) -> Any:
        import pyarrow as pa
        from pyarrow import dataset

        system, path = self._place.dataset()
        kinds = pa.schema([("day", pa.string()), ("endpoint", pa.string())])
        return dataset.dataset(
            [f"{path}/{name}" for name in files], filesystem=system, format="parquet", partition_base_dir=path,
            partitioning=dataset.partitioning(kinds, flavor="hive"),
        )  # fmt: skip


def _connect() -> Any:
    try:
        import duckdb
    except ImportError:
        raise SettingsError(
            "setting_invalid", f"The archive is read with an extra: {INSTALL}.", field="retention.archive_url",
            expected="modelyard[archive] installed",
        ) from None  # fmt: skip
    # It would fetch extensions from the network by itself; none is needed.
    return duckdb.connect(config={"memory_limit": _MEMORY_LIMIT, "autoinstall_known_extensions": "false"})


def _parameters(wanted: RecordFilter) -> dict[str, Any]:
    since, until = (
        None if at is None else microseconds(at, name)
        for at, name in ((wanted.since, "since"), (wanted.until, "until"))
    )  # fmt: skip
    low, high = (0, 999) if wanted.status is None else status_range(wanted.status)
    names = {name: getattr(wanted, name) for name in ("model", "version", "client", "endpoint", "subject", "items")}
    return {**names, "since": since, "until": until, "low": low, "high": high}


def _day(at: float | None) -> str | None:
    """The day of a moment, as partitions are named."""
    return time_text(int(at * 1e6))[:10] if at is not None and 0 <= at < _YEAR_9999_S else None


def _record(row: tuple[Any, ...]) -> dict[str, Any]:
    names = (
        "at_us", "id", "request_id", "client", "key_id", "endpoint", "model", "version", "arm", "status", "code",
        "rows", "inputs", "outputs", *_NUMBERS, *_SIZES, "flag", "surface", "subject", "outcomes",
    )  # fmt: skip
    flat = dict(zip(names, row, strict=True))
    flat |= {name: orjson.loads(flat[name]) for name in JSON}
    latency, sizes = ({name: flat.pop(name) for name in some} for some in (_NUMBERS, _SIZES))
    return {"id": flat["id"], "time": time_text(flat.pop("at_us")), **flat, "latency": latency, "sizes": sizes}


def _place(record: dict[str, Any]) -> tuple[int, str]:
    return (datetime.fromisoformat(record["time"]) - _EPOCH) // timedelta(microseconds=1), record["id"]


def _once(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each id once: the same record has the same time, so that both come together, the live one first."""
    last = None
    for record in records:
        if record["id"] != last:
            yield record
        last = record["id"]
