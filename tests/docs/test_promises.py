"""docs/promises.md says what the tests say, and no identifier is without a test or a reason."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def promises() -> ModuleType:
    """docs/promises.py."""
    spec = importlib.util.spec_from_file_location("promises", ROOT / "docs" / "promises.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_identifier_has_a_test_or_a_reason(promises: ModuleType) -> None:
    """What is neither tried nor excused is missing; an excuse for what is tried is old."""
    known = {*promises.PROMISES, *promises.TESTS}
    tried = set(promises.proofs())
    assert tried <= known, f"nobody knows {sorted(tried - known)}"
    missing = known - tried - set(promises.NOT_YET)
    assert not missing, f"neither a test nor a reason: {sorted(missing)}"
    assert set(promises.NOT_YET) <= known


def test_the_page_is_not_old(promises: ModuleType) -> None:
    """Every identifier has its line, every test that the page names exists, and its figures are those that are kept."""
    text = promises.PAGE.read_text()
    assert all(f"### {one}\n" in text for one in promises.PROMISES)
    assert all(f"| {one} | " in text for one in promises.TESTS)
    exist = {f"[{proof.test.removeprefix('test_')}](../{proof.path})" for known in promises.proofs().values()
             for proof in known}  # fmt: skip
    named = set(re.findall(r"\[[a-z0-9_]+\]\(\.\./tests/[^)]*\)(?! \(\d+\))", text))
    assert named <= exist, f"run `python docs/promises.py`: {sorted(named - exist)}"
    assert promises.figures() in text, "run `python docs/promises.py`: the figures are old"
