"""Figures of the prediction log (DATA-3): they are what the log says, by whatever they are told apart, before and after
the rollup, with late records, and after records left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, text

from modelyard.analytics.cells import DAY_S, HOUR_S, MINUTE_S
from modelyard.analytics.histogram import RELATIVE_ERROR, percentiles, unpacked
from modelyard.analytics.ports import AnalyticsStore, Counted, Selection
from modelyard.analytics.rolling import LEASE, Roller
from modelyard.core.errors import ConflictError
from modelyard.journal.ports import Outcome, SpoolPosition
from modelyard.journal.record import PredictionRecord
from modelyard.retention.ports import Cutoffs
from modelyard.storage.sql.analytics import store
from modelyard.storage.stores import Stores
from modelyard.testing import FakeClock, prediction_record

END = SpoolPosition("f", 1)
NOW = 1_700_006_400.0
"""2023-11-15T00:00:00Z: a day, an hour and a minute begin."""
ALL = Selection(NOW - 40 * DAY_S, NOW + HOUR_S)
GROUPS: list[tuple[str, ...]] = [
    (), ("model",), ("version",), ("client",), ("endpoint",), ("model", "version"), ("endpoint", "client"),
]  # fmt: skip
CHOICES: list[dict[str, str]] = [
    {}, {"model": "m1"}, {"version": "2"}, {"client": "c1"}, {"endpoint": "e0", "client": "c2"}, {"model": "none"},
]  # fmt: skip


def analytics(stores: Stores) -> AnalyticsStore:
    assert stores.analytics is not None
    return stores.analytics


def made(number: int, at: float, **fields: Any) -> PredictionRecord:
    """The `number`th record."""
    return prediction_record(f"p{number:05}", at, **fields)


def various(seed: int, count: int, oldest_s: float) -> list[PredictionRecord]:
    """Records of all kinds, the last of them a second ago."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        at = NOW - 1 - draw.random() ** 3 * oldest_s
        model = draw.randrange(3)
        fields = {
            "client": f"c{draw.randrange(4)}", "endpoint": f"e{model}", "model": f"m{model}",
            "version": str(draw.randrange(1, 3)), "status": draw.choice([200] * 8 + [400, 422, 499, 500, 503]),
            "rows": draw.randrange(4), "total_us": int(draw.lognormvariate(7, 2)), "request_bytes": draw.randrange(9),
        }  # fmt: skip
        found.append(made(number, at, **fields))
    return found


def rolled(stores: Stores, now: float = NOW) -> int:
    return Roller(analytics(stores), stores.leases, FakeClock(now)).run()


def counted(
    stores: Stores, wanted: Selection = ALL, by: Sequence[str] = (), interval_s: int | None = None, now: float = NOW
) -> Counted:
    return analytics(stores).count(wanted, by, interval_s, now)


def plain(figures: Counted) -> dict[tuple[int | str, ...], tuple[Any, ...]]:
    """Figures as one compares them."""
    return {
        key: (one.requests, one.client_errors, one.server_errors, one.items, one.answered, one.total_us,
              one.request_bytes, one.answer_bytes, one.max_us, unpacked(one.latency))
        for key, one in figures.groups.items()
    }  # fmt: skip


def expected(
    records: Sequence[PredictionRecord], by: Sequence[str], interval_s: int | None, wanted: dict[str, str]
) -> dict[tuple[int | str, ...], tuple[int, ...]]:
    """Requests, errors of both kinds and latency by group, counted one by one."""
    found: dict[tuple[int | str, ...], list[int]] = {}
    for record in records:
        header = record.header
        if any(getattr(header, name) != value for name, value in wanted.items()):
            continue
        start = (header.at_ns // 10**9 // interval_s * interval_s,) if interval_s else ()
        sums = found.setdefault((*start, *(getattr(header, name) for name in by)), [0, 0, 0, 0])
        answered = header.status < 400
        for place, value in enumerate((1, 400 <= header.status < 500, header.status >= 500)):
            sums[place] += value
        sums[3] += header.total_us if answered else 0
    return {key: tuple(sums) for key, sums in found.items()}


def short(figures: Counted) -> dict[tuple[int | str, ...], tuple[int, ...]]:
    return {
        key: (one.requests, one.client_errors, one.server_errors, one.total_us) for key, one in figures.groups.items()
    }


def test_of_too_many_requests_the_last_minutes_wait(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question looks at a bounded number of requests of the log: whole minutes of them, from the oldest on, are
    counted, and the others are said to be pending until they are rolled up; a filter that leaves few of them counts
    all. Scores do the same. The fake, which keeps nothing but the log, counts it all."""
    bounded = isinstance(analytics(stores), store.SqlAnalyticsStore)
    monkeypatch.setattr(store, "MOST_COUNTED", 25)
    at = [NOW - 150 + 60 * minute for minute in range(3) for _ in range(10)]
    fields = [{"client": "rare" if number % 10 == 0 else "c"} for number in range(30)]
    records = [
        made(n, when, outputs={"p": [[0.5, 0.5]]}, model="m", **more)
        for n, (when, more) in enumerate(zip(at, fields, strict=True))
    ]
    stores.sink.store(records, END)
    counted = analytics(stores).count(ALL, (), None, NOW)
    assert (counted.groups[()].requests, counted.pending) == ((20, 1) if bounded else (30, 0))
    rare = analytics(stores).count(msgspec.structs.replace(ALL, client="rare"), (), None, NOW)
    assert (rare.groups[()].requests, rare.pending) == (3, 0)
    scored = analytics(stores).scores(msgspec.structs.replace(ALL, model="m"), NOW)
    assert scored.pending == int(bounded)
    rolled(stores)
    assert analytics(stores).count(ALL, (), None, NOW).groups[()].requests == 30
    assert analytics(stores).count(ALL, (), None, NOW).pending == 0


def test_an_hour_whose_minutes_are_gone_is_made_of_the_log(stores: Stores) -> None:
    """A clock that jumped ahead and back dropped the minutes; a late record does not take the rest out of its hour."""
    stores.sink.store([made(n, NOW - 1800 + n) for n in range(100)], END)
    rolled(stores)
    stores.sink.store([made(500, NOW - 1700)], END)
    rolled(stores, NOW + 40 * HOUR_S)
    stores.sink.store([made(501, NOW - 10), made(502, NOW - 1700)], END)
    rolled(stores)
    for interval_s in (None, DAY_S, HOUR_S, MINUTE_S):
        found = counted(stores, interval_s=interval_s)
        assert sum(one.requests for one in found.groups.values()) == 103, interval_s
    assert analytics(stores).waiting(NOW) == 0


def test_names_of_outputs_may_hold_any_character(stores: Stores) -> None:
    """Neither a NUL, which not every database keeps, nor a long name holds the rollups up."""
    outputs = {"a\0b": 1.0, "a\ufffdb": 2.0, "x": {"\0": 0.5}, "y" * 500: "\0"}
    one = made(1, NOW - 100)
    stores.sink.store([msgspec.structs.replace(one, outputs=outputs)], END)
    rolled(stores)
    assert analytics(stores).waiting(NOW) == 0
    names = {output for _, _, output in analytics(stores).scores(ALL, NOW).outputs}
    assert names == {"a\ufffdb", "x.\ufffd", "y" * 255}


@pytest.mark.parametrize("oldest_s", [DAY_S, 15 * DAY_S], ids=["day", "month"])
def test_figures_are_what_the_log_says(stores: Stores, oldest_s: float) -> None:
    """By every name and interval, of every selection: the sums over the records, one by one."""
    records = various(1, 60, oldest_s)
    stores.sink.store(records, END)
    assert rolled(stores) > 0
    assert analytics(stores).waiting(NOW) == 0
    for interval_s in (None, HOUR_S, DAY_S):
        for by in GROUPS:
            assert short(counted(stores, by=by, interval_s=interval_s)) == expected(records, by, interval_s, {})
    for chosen in CHOICES:
        wanted = Selection(ALL.since, ALL.until, **chosen)
        for by in ((), ("client",), ("version",)):
            assert short(counted(stores, wanted, by)) == expected(records, by, None, chosen)
    assert counted(stores).pending == 0


def test_any_time_is_covered_once(stores: Stores) -> None:
    """A time that begins and ends anywhere: minutes, hours and days are put together without a gap or an overlap; the
    answer says what it counted, which is what was asked for and less than an hour around it."""
    records = various(2, 60, 20 * DAY_S)
    stores.sink.store(records, END)
    rolled(stores)
    lengths = (30, 61, 59 * 60, 5 * HOUR_S, 23.6 * HOUR_S, 3 * DAY_S, 15.3 * DAY_S)
    for since_s, until in [(length, NOW - length * ago) for length in lengths for ago in (0, 0.3)]:
        found = counted(stores, Selection(NOW - since_s, until))
        assert found.since <= NOW - since_s < found.since + HOUR_S
        assert until <= found.until < until + HOUR_S
        inside = [one for one in records if found.since * 10**9 <= one.header.at_ns < found.until * 10**9]
        assert short(found) == expected(inside, (), None, {})
        if since_s < DAY_S:
            assert (found.since % MINUTE_S, found.since <= NOW - since_s < found.since + MINUTE_S) == (0, True)


def test_new_records_count_at_once(stores: Stores) -> None:
    """Before their minute is over, and while it waits to be rolled up: nobody waits for a rollup to see now."""
    stores.sink.store([made(n, NOW - 100 - n) for n in range(10)], END)
    assert [one.requests for one in counted(stores).groups.values()] == [10]
    rolled(stores)
    stores.sink.store([made(n, NOW - 1) for n in range(10, 15)], END)
    assert [one.requests for one in counted(stores).groups.values()] == [15]
    assert sum(one.requests for one in counted(stores, by=("client",), interval_s=MINUTE_S).groups.values()) == 15


@pytest.mark.parametrize("late_s", [2 * HOUR_S, 20 * DAY_S])
def test_a_late_record_corrects_its_hour(stores: Stores, late_s: float) -> None:
    """A record that comes when its minute, hour and day are long rolled up: the next rollup has it, whole, once; and a
    record that comes twice changes nothing."""
    records = various(3, 30, 25 * DAY_S)
    stores.sink.store(records, END)
    rolled(stores)
    late = made(9000, NOW - late_s, client="c1", total_us=77)
    for _ in range(2):
        stores.sink.store([late], END)
        rolled(stores)
        whole = expected([*records, late], ("client",), HOUR_S, {})
        assert short(counted(stores, by=("client",), interval_s=HOUR_S)) == whole
        assert short(counted(stores, by=("client",))) == expected([*records, late], ("client",), None, {})


def test_rolling_up_again_changes_nothing(stores: Stores) -> None:
    """What is rolled up a second time, after a note that nothing needed, is the same to the last bin."""
    records = various(4, 40, 3 * DAY_S)
    stores.sink.store(records, END)
    rolled(stores)
    before = plain(counted(stores, by=("model", "client"), interval_s=HOUR_S))
    stores.sink.store([made(9001, at.header.at_ns / 1e9, subject="nobody") for at in records[:1]], END)
    erasure = stores.erasures.register("nobody", NOW)
    stores.erasures.erase(erasure, "nobody", 10)
    rolled(stores)
    assert plain(counted(stores, by=("model", "client"), interval_s=HOUR_S)) == before


def test_percentiles_are_within_their_error(stores: Stores) -> None:
    """p50, p90 and p99 of ten thousand latencies, half of them rolled up: within 1/64 of the exact ranks."""
    draw = random.Random(5)
    values = [int(draw.lognormvariate(8, 1.5)) for _ in range(2000)]
    stores.sink.store([made(n, NOW - 3 * HOUR_S + n, total_us=value) for n, value in enumerate(values)], END)
    rolled(stores)
    (figures,) = counted(stores).groups.values()
    assert (figures.answered, figures.total_us, figures.max_us) == (2000, sum(values), max(values))
    for share, found in zip((0.5, 0.9, 0.99), percentiles(figures.latency, (0.5, 0.9, 0.99)), strict=True):
        exact = sorted(values)[int(share * 2000) - 1]
        assert found == pytest.approx(exact, rel=RELATIVE_ERROR)


def test_figures_follow_what_leaves(stores: Stores) -> None:
    """By age and by subject, after the next rollup: what is gone counts no more, what a hold keeps still does."""
    records = [made(n, NOW - 10 * DAY_S + 2 * n * HOUR_S, subject=f"s{n % 3}", client=f"c{n % 2}") for n in range(60)]
    stores.sink.store(records, END)
    rolled(stores)
    erasure = stores.erasures.register("s1", NOW)
    while stores.erasures.erase(erasure, "s1", 7).at is not None:
        pass
    cutoff = NOW - 8 * DAY_S
    assert stores.retention.delete(Cutoffs(cutoff, cutoff), 0.0, 1000).predictions
    rolled(stores)
    left = [one for one in records if one.header.subject != "s1" and one.header.at_ns >= cutoff * 1e9]
    for interval_s in (None, HOUR_S, DAY_S):
        found = counted(stores, by=("client",), interval_s=interval_s)
        assert short(found) == expected(left, ("client",), interval_s, {})


SCORED = [
    ({"label": [1, 0], "p": [[0.25, 0.75], [0.5, 0.5]]}, 2),
    ({"label": ["good"], "p": [[1.0, 0.0]]}, 1),
    ([{"output": {"label": True, "p": [0.125, 0.875]}}, {"error": {"code": "x"}}], 2),
    ({"y": -3.5}, 0),
    ("nothing", 1),
    (None, 1),
]


def test_scores_are_counted_by_output(stores: Stores) -> None:
    """Columns by themselves, labels by how often they came, refused requests not at all; of one version or of all."""
    records = [
        made(n, NOW - 2 * HOUR_S + 60 * n, outputs=outputs, rows=rows, version="1")
        for n, (outputs, rows) in enumerate(SCORED)
    ]
    more = [made(50, NOW - 70, outputs={"p": [[0.5, 0.5]]}, version="2"), made(51, NOW - 70, status=400),
            made(52, NOW - 2, outputs={"p": [[0.75, 0.25]]}, version="2")]  # fmt: skip
    stores.sink.store([*records, *more], END)
    rolled(stores)
    found = analytics(stores).scores(ALL, NOW).outputs
    first = found[("tree", "1", "p[0]")]
    assert (first.count, first.numbers, first.total, first.least, first.largest) == (4, 4, 1.875, 0.125, 1.0)
    assert found[("tree", "1", "label")].labels == {"1": 1, "0": 1, "good": 1, "true": 1}
    assert (found[("tree", "1", "y")].least, sum(unpacked(first.bins).values())) == (-3.5, 4)
    assert found[("tree", "2", "p[1]")].total == 0.75
    of_one = analytics(stores).scores(Selection(ALL.since, ALL.until, model="tree", version="2"), NOW).outputs
    assert {place[1] for place in of_one} == {"2"}


def test_only_the_holder_of_the_lease_rolls_up(stores: Stores) -> None:
    """F11: a process that was put aside finds its lease taken: it writes nothing; and while another holds it, a roller
    does nothing at all."""
    stores.sink.store([made(0, NOW - 300)], END)
    old = stores.leases.acquire(LEASE, "one", 60.0)
    assert old is not None
    assert rolled(stores) == 0
    stores.leases.release(old)
    assert stores.leases.acquire(LEASE, "two", 60.0) is not None
    with pytest.raises(ConflictError):
        analytics(stores).roll(NOW, old)
    assert analytics(stores).waiting(NOW) == 1


class Interrupted(Exception):
    """The failpoint's."""


def test_a_rollup_that_is_cut_off_is_done_again(stores: Stores) -> None:
    """At each of its statements and commits: the next one is whole, and nothing waits or counts twice after it."""
    if not hasattr(stores.ping, "__self__"):
        return  # nothing to cut in memory
    engine = stores.ping.__self__.engine
    records = various(6, 9, 2 * HOUR_S)
    stores.sink.store(records, END)
    rolled(stores)
    cut = 0
    for nth in range(0, 200, 2):
        late = made(8000 + nth, NOW - 90 * 60, client="late")
        stores.sink.store([late], END)
        records.append(late)
        left = Counter(nth=nth)

        def step(*_: Any, left: Counter[str] = left) -> None:
            left["nth"] -= 1
            if left["nth"] == -1:
                raise Interrupted

        event.listen(engine, "before_cursor_execute", step)
        event.listen(engine, "commit", step)
        try:
            with suppress(Interrupted):
                rolled(stores)
                nth = -1
        finally:
            event.remove(engine, "before_cursor_execute", step)
            event.remove(engine, "commit", step)
        if nth == -1:
            break
        cut += 1
        rolled(stores, NOW)
        assert analytics(stores).waiting(NOW) == 0
        assert short(counted(stores, by=("client",))) == expected(records, ("client",), None, {})
    assert 5 < cut < 99


VIEWS = ("v_requests_hourly", "v_requests_daily", "v_versions_hourly", "v_versions_daily", "v_failures", "v_outcomes")


def test_views_have_stable_names_and_columns(stores: Stores) -> None:
    """Each says what the log says, in a column of each documented name; times are RFC 3339."""
    if not hasattr(stores.ping, "__self__"):
        return  # no SQL in memory
    records = [made(n, NOW - 7200 - n, client=f"c{n % 2}", status=500 if n == 3 else 200) for n in range(6)]
    stores.sink.store(records, END)
    stores.outcomes.put([Outcome("p00001", 0, "good", NOW, "c1", "k")], NOW)
    rolled(stores)
    found: dict[str, list[dict[str, Any]]] = {}
    with stores.ping.__self__.read() as connection:
        for name in VIEWS:
            found[name] = [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name}"))]
    hourly = {(one["time"], one["client"]): one["requests"] for one in found["v_requests_hourly"]}
    assert sum(hourly.values()) == 6
    assert all(time.endswith(":00:00Z") and len(time) == 20 for time, _ in hourly)
    (everybody,) = found["v_versions_daily"]
    assert (everybody["time"], everybody["requests"], everybody["server_errors"]) == ("2023-11-14T00:00:00Z", 6, 1)
    assert (float(everybody["mean_us"]), everybody["p99_us"], everybody["max_us"]) == (40.0, 40.0, 40)
    (failure,) = found["v_failures"]
    assert (failure["id"], failure["status"], failure["time"]) == ("p00003", 500, "2023-11-14T21:59:57Z")
    (outcome,) = found["v_outcomes"]
    assert (outcome["prediction_id"], outcome["value"], outcome["time"]) == ("p00001", '"good"', "2023-11-14T21:59:59Z")
    documented = (Path(__file__).parent.parent.parent / "docs" / "concepts" / "analytics.md").read_text()
    for name, (first, *_) in found.items():
        assert all(f"`{column}`" in documented for column in (name, *first)), name
