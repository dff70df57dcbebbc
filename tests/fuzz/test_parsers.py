"""Whatever bytes a stranger sends to a parser, a refusal is all that escapes (Z2): kept cases, and seeded mutations."""

from __future__ import annotations

import random
import sys
import time
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.fuzz.mutation import CORPUS, mutated
from tests.fuzz.targets import TARGETS

HANGS_S = 10


@pytest.mark.parametrize("runs", [300, pytest.param(20_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", TARGETS)
def test_a_refusal_is_all_that_escapes(name: str, runs: int) -> None:
    """Z2: each kept case and each mutation of a good input is read or refused, in time."""
    target, chance = TARGETS[name], random.Random(zlib.crc32(name.encode()))
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    for data in (*target.seeds, *kept, *(mutated(target.seeds, target.tokens, chance) for _ in range(runs))):
        began = time.monotonic()
        try:
            target.check(data)
        except Exception as error:
            raise AssertionError(f"{name} broke on {data!r}") from error
        assert time.monotonic() - began < HANGS_S, data
