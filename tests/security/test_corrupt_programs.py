"""F10 Z4: damaged pickles and classes end in a code or are still models; what they break is their jail."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damaged
import msgspec
import pytest
from jailed_samples import pickled, python  # type: ignore[import-not-found]

from jailed import BOUNDS
from modelyard.core.clock import SystemClock
from modelyard.core.errors import ModelError, PublishError
from modelyard.models.load import check_load
from modelyard.models.manifest import Manifest
from modelyard.models.ports import UNSAFE_FORMATS
from modelyard.runtimes import detect

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from figures import record

SHORT, LONG = (3, 4), (64, 300)
"""Cuts and flipped bits of each file."""


def _damage(content: bytes, counts: tuple[int, int], seed: int) -> Iterator[bytes]:
    yield b""
    yield damaged.wrong_magic(content)
    yield from damaged.cuts(content, counts[0])
    draw = random.Random(seed)
    for _ in range(counts[1]):
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        yield bytes(changed)


def _fate(folder: Path, options: dict[str, Any]) -> str:
    """The code of a publish's check, or "served"."""
    try:
        runtime, entry = detect(folder, sorted(UNSAFE_FORMATS))
        found = runtime.inspect(folder, entry, options)
        loaded = runtime.load(folder, Manifest(found.format, found.entry, (), found.signature), options)
        try:
            check_load(loaded, None, 0.0, SystemClock())
        finally:
            loaded.close()
    except (PublishError, ModelError) as error:
        return "shows a path" if str(folder) in error.message else error.code
    return "served"


def _children() -> set[int]:
    """Processes that this one started and that are there."""
    return {
        int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    }


def _damage_all(form: str, folder: Path, counts: tuple[int, int]) -> Counter[str]:
    (model := folder / "model").mkdir()
    (made := folder / "made").mkdir()
    sample = {"pickle": pickled, "python": python}[form]("iris", model if form == "python" else made)
    (model / sample.name).write_bytes(sample.content)
    options = {**sample.options, "threads": 1, "jail": msgspec.structs.asdict(BOUNDS)}
    assert _fate(model, options) == "served"
    before, codes = _children(), Counter[str]()
    for path in sorted(model.iterdir()):
        good = path.read_bytes()
        for content in _damage(good, counts, seed=13):
            path.write_bytes(content)
            codes[_fate(model, options)] += 1
        path.write_bytes(good)
    assert _fate(model, options) == "served"
    assert _children() <= before
    assert "shows a path" not in codes
    return codes


def test_damaged_pickles_and_classes_end_in_a_code(tmp_path: Path) -> None:
    """F10 Z4: a pickle, and each file of a class, emptied, cut off, begun otherwise, with flipped bits: a code without
    a path, or a model that loads and answers; afterwards the good one is served, and no process is left."""
    for form in sorted(UNSAFE_FORMATS):
        (tmp_path / form).mkdir()
        codes = _damage_all(form, tmp_path / form, SHORT)
        assert codes.total() - codes["served"] >= SHORT[0], codes


@pytest.mark.long
@pytest.mark.parametrize("form", sorted(UNSAFE_FORMATS))
def test_many_damaged_pickles_and_classes_end_in_a_code(form: str, tmp_path: Path) -> None:
    """F10 Z4: the same, each file cut at 64 places and with 300 flipped bits."""
    codes = _damage_all(form, tmp_path, LONG)
    record(f"F10 Z4 {form}, damaged", files=codes.total(), refused=codes.total() - codes["served"], **codes)
