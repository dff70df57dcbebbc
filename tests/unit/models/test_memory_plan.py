"""What fits into memory: estimates, what must be there, what leaves, and what is refused with its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import ConflictError
from modelyard.core.settings import Settings, load_settings
from modelyard.models.loads.admission import Admission
from modelyard.models.loads.memory import (
    BASE_BYTES,
    FACTORS,
    JAIL_BYTES,
    SHARE,
    estimate_bytes,
    memory_bytes,
    model_memory_bytes,
    need_bytes,
)
from modelyard.models.loads.plan import Candidate, plan
from modelyard.models.manifest import FileEntry
from modelyard.models.ports import JAILED_FORMATS, Version
from modelyard.testing import MemoryRegistry, manifest

MIB = 1024 * 1024


def one(name: str, need: int, **more: Any) -> Candidate:
    """A candidate of one model."""
    return Candidate(("m", name), need, **more)


def names(keys: Any) -> list[str]:
    """Versions, as they come."""
    return [version for _, version in keys]


def test_what_stays_is_let_in_smallest_first_and_never_leaves() -> None:
    """What has traffic is loaded as far as it fits, what does not says what is in its way; what is held stays."""
    made = plan([one("a", 60, stays=True, held=True), one("b", 50, stays=True), one("c", 30, stays=True)], 100, 9)
    assert (names(made.load), made.leave, dict(made.short)) == (["c"], (), {("m", "b"): 90})
    over = plan([one("a", 60, stays=True, held=True), one("b", 60, stays=True, held=True)], 100, 9)
    assert (over.load, over.leave, dict(over.short)) == (frozenset(), (), {})


def test_the_last_used_of_the_others_are_held() -> None:
    """Least recently used first they leave, for one that was asked for; never more of them than the bound."""
    held = [one(str(n), 20, held=True, used_at=float(n)) for n in range(4)]
    asked = one("asked", 50, used_at=99.0)
    made = plan([*held, one("stays", 20, stays=True, held=True), asked], 100, 9)
    assert (names(made.load), names(made.leave)) == (["asked"], ["0", "1", "2"])
    few = plan([*held, one("new", 1, used_at=5.0)], None, 2)
    assert (names(few.load), names(few.leave)) == (["new"], ["0", "1", "2"])
    none = plan([*held, one("stays", 1, stays=True)], None, 0)
    assert (names(none.load), len(none.leave)) == (["stays"], 4)


def test_an_idle_version_that_can_never_fit_is_short() -> None:
    """One that only has no room for now is not: it rests until it is asked for."""
    made = plan([one("stays", 60, stays=True, held=True), one("large", 50), one("rests", 40), one("last", 35)], 100, 9)
    assert len(made.load) == 1
    assert dict(made.short) == {("m", "large"): 60}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans(), st.integers(0, 9)), max_size=12),
    st.integers(0, 150),
    st.integers(0, 5),
)
def test_a_plan_keeps_its_bounds(drawn: list[tuple[int, bool, bool, int]], has: int, idle: int) -> None:
    """Whatever there is: what stays is not thrown out, the rest is within number and room, and all that is not held
    has a reason."""
    known = [one(str(n), need, stays=stays, held=held, used_at=at) for n, (need, stays, held, at) in enumerate(drawn)]
    made = plan(known, has, idle)
    staying = {c.key for c in known if c.held and c.stays}
    after = ({c.key for c in known if c.held} - set(made.leave)) | made.load
    assert staying <= after
    assert not staying & set(made.leave)
    assert sum(not c.stays for c in known if c.key in after) <= idle
    forced = sum(c.need_bytes for c in known if c.key in staying)
    assert sum(c.need_bytes for c in known if c.key in after) <= max(has, forced)


def test_estimates_grow_with_size_format_and_workers(tmp_path: Path) -> None:
    """Bytes by the format's factor, a jail's interpreter beside; ONNX's first 64 MiB as trees; each worker holds a
    copy, or one process for all."""
    onnx, sklearn, jailed = (_sized(form, 100 * MIB) for form in ("onnx", "sklearn", "python"))
    many = int(64 * MIB * 4.5 + 36 * MIB * 1.5)
    assert estimate_bytes(onnx.manifest) == BASE_BYTES + many
    assert estimate_bytes(_sized("onnx", 10 * MIB).manifest) == BASE_BYTES + 45 * MIB
    assert estimate_bytes(sklearn.manifest) == BASE_BYTES + 300 * MIB
    assert estimate_bytes(jailed.manifest) == BASE_BYTES + JAIL_BYTES + 200 * MIB
    assert need_bytes(onnx, _settings(tmp_path, workers=3)) == 3 * (BASE_BYTES + many)
    shared = _settings(tmp_path, workers=3, **{"models.shared_from_bytes": 100 * MIB})
    assert need_bytes(onnx, shared) == BASE_BYTES + many


def test_no_estimate_is_less_than_what_was_measured() -> None:
    """The record of `python -m bench.memory_factors`: every format, a forest in ONNX among them, and what loading took
    is within the estimate of today, a jail's interpreter left out."""
    models = json.loads(Path("bench/results/memory_factors.json").read_text())["models"]
    assert {row["format"] for row in models.values()} == set(FACTORS)
    assert "onnx-forest" in models
    for name, row in models.items():
        jail = JAIL_BYTES if row["format"] in JAILED_FORMATS else 0
        assert estimate_bytes(_sized(row["format"], row["size_bytes"]).manifest) - jail >= row["grown_bytes"], name


def test_the_memory_is_the_least_that_a_cgroup_leaves(tmp_path: Path) -> None:
    """Version 2 and 1, along the whole path; `max` is no limit; three quarters of it are for models, unless said."""
    machine = memory_bytes(tmp_path)
    assert machine > 64 * MIB
    for path, text in {
        "proc/self/cgroup": "0::/a/b\n4:memory:/c\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": f"{48 * MIB}\n",
        "sys/fs/cgroup/memory/c/memory.limit_in_bytes": f"{40 * MIB}\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert memory_bytes(tmp_path) == 40 * MIB
    assert model_memory_bytes(_settings(tmp_path), tmp_path) == int(40 * MIB * SHARE)
    assert model_memory_bytes(_settings(tmp_path, **{"models.memory_bytes": 7 * MIB}), tmp_path) == 7 * MIB
    assert model_memory_bytes(_settings(tmp_path, **{"models.admission": False}), tmp_path) is None


def _settings(folder: Path, **flags: Any) -> Settings:
    return load_settings(data=folder / "data", **{"workers": 1, **flags})


def _sized(form: str, size: int, model: str = "tree", name: str = "1") -> Version:
    made = manifest(None, format=form)
    sized = type(made)(form, "model", (FileEntry("model", "0" * 64, size),), made.signature)
    return Version(model, name, sized.digest(), sized, 0.0)


class Office:
    """An admission over a registry whose routed versions the test names."""

    def __init__(self, folder: Path, **flags: Any) -> None:
        self.registry = MemoryRegistry()
        self.routed: set[tuple[str, str]] = set()
        self.admission = Admission(
            _settings(folder, **{"models.memory_bytes": 100 * MIB, **flags}), self.registry, lambda: self.routed
        )

    def add(self, model: str, name: str, size: int, routed: bool = False) -> Version:
        """A version that exists."""
        made = _sized("torch_export", size * 3 // 4, model, name)
        self.registry.add_version(made)
        if routed:
            self.routed.add((model, name))
        return made


def test_a_publish_that_would_not_fit_is_refused_with_numbers(tmp_path: Path) -> None:
    """Beside what has traffic, or is pinned; what has neither would leave. The refusal says needs, has, and who holds
    it."""
    office = Office(tmp_path, **{"models.pinned": ["pinned/1"]})
    office.add("big", "1", 30 * MIB, routed=True)
    office.add("idle", "1", 60 * MIB)
    office.add("pinned", "1", 10 * MIB)
    office.admission.version(_sized("torch_export", 15 * MIB, "new"))
    with pytest.raises(ConflictError) as refused:
        office.admission.version(_sized("torch_export", 18 * MIB, "new"))
    told = refused.value.detail
    assert refused.value.code == "memory_insufficient"
    assert told["needs_bytes"] == BASE_BYTES + 36 * MIB
    assert told["has_bytes"] == 100 * MIB
    assert told["held_by"] == {"big/1": BASE_BYTES + 45 * MIB, "pinned/1": BASE_BYTES + 15 * MIB}
    assert "new/1 would take about 38 MiB" in refused.value.message
    off = Office(tmp_path, **{"models.admission": False})
    off.admission.version(_sized("torch_export", 10_000 * MIB, "new"))


def test_traffic_is_refused_only_for_what_is_added(tmp_path: Path) -> None:
    """A switch needs both versions; shares of what has traffic already may be changed also where memory is short, and
    what does not exist is left to the store."""
    office = Office(tmp_path)
    office.add("big", "1", 50 * MIB, routed=True)
    office.add("big", "2", 30 * MIB)
    office.add("small", "1", 5 * MIB)
    office.admission.traffic([("big", "1"), ("small", "1")])
    with pytest.raises(ConflictError, match="big/2 would take"):
        office.admission.traffic([("big", "2")])
    office.add("huge", "1", 500 * MIB, routed=True)
    office.admission.traffic([("huge", "1"), ("big", "1")])
    office.admission.traffic([("none", "1")])
