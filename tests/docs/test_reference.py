"""The reference pages say what the code says, and every link of every page leads somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from modelyard.core.errors import CODES
from modelyard.core.events import Event
from modelyard.core.settings import Settings

ROOT = Path(__file__).parent.parent.parent
PAGES = ("settings.md", "errors.md", "events.md", "routes.md", "commands.md")
OURS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]


def generator() -> ModuleType:
    """docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_page_is_what_the_code_says(name: str) -> None:
    """A page that differs from what `python docs/generate.py` writes is old."""
    written = (ROOT / "docs" / "reference" / name).read_text()
    assert written == generator().PAGES[name](), f"run `python docs/generate.py`: {name} is old"


def test_nothing_is_missing() -> None:
    """Every setting, code and event has its line: the generator cannot forget one."""
    pages = {name: write() for name, write in generator().PAGES.items()}
    assert tuple(pages) == PAGES
    for section, value in Settings().model_dump().items():
        names = [f"{section}.{key}" for key in value] if isinstance(value, dict) else [section]
        assert all(f"| `{name}` |" in pages["settings.md"] for name in names), names
    assert all(f"| `{code}` |" in pages["errors.md"] for code in CODES)
    assert all(f"| `{event}` |" in pages["events.md"] for event in Event)


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """A link to a file of the repository names one that exists, and a link inside a page a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name) if name else path
        assert found.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target
