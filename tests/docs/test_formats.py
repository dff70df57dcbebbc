"""docs/guides/formats.md says what the code says: each format, its files, its extra and its threads."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from bench.format_page import page

from modelyard.core.settings import load_settings
from modelyard.models.ports import JAILED_FORMATS
from modelyard.models.publish import SUFFIXES
from modelyard.runtimes import RUNTIMES
from modelyard.runtimes.conversion.to_onnx import CONVERTERS
from modelyard.runtimes.threads import size_threads

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "guides" / "formats.md"


def _rows() -> dict[str, list[str]]:
    lines = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in lines}


def test_every_format_has_its_row() -> None:
    """No format is missing, none is promised that there is not."""
    assert list(_rows()) == list(RUNTIMES)


def test_the_files_are_those_that_are_kept() -> None:
    """The suffix that a lone file of the format gets is one of the row's."""
    assert SUFFIXES.keys() == _rows().keys()
    for name, (_, files, *_rest) in _rows().items():
        assert f"`{SUFFIXES[name]}`" in files.split(", ")


def test_the_extra_is_declared() -> None:
    """Each command installs an extra of pyproject.toml; a format without one needs nothing more."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, (_, _, install, *_rest) in _rows().items():
        (named,) = re.findall(r"pip install '?modelyard(?:\[(\w+)\])?'?`", install)
        assert named in extras or (named, name) in (("", "onnx"), ("", "python"))


def test_the_threads_are_those_that_are_set(tmp_path: Path) -> None:
    """Each name in the column is one that is sized from the cgroup at the start."""
    sized = size_threads(load_settings(), {}, tmp_path).libraries
    for *_rest, threads, _convert in _rows().values():
        assert set(threads.split(", ")) <= sized.keys()


def test_what_can_be_converted_is() -> None:
    """`yes` where there is a converter, `no` where there is none."""
    assert {name for name, (*_rest, convert) in _rows().items() if convert == "yes"} == CONVERTERS.keys()
    assert {convert for *_rest, convert in _rows().values()} == {"yes", "no"}


def test_the_measured_table_is_that_of_the_record() -> None:
    """docs/formats-measured.md is what `python -m bench.formats` wrote, with every format that can be served, each
    served row for row as its library answers."""
    record = json.loads((ROOT / "bench" / "results" / "formats.json").read_text())
    assert (ROOT / "docs" / "formats-measured.md").read_text() == page(record)
    formats = {name.replace("torch-export", "torch_export").partition("-")[0] for name in record["formats"]}
    assert formats == RUNTIMES.keys()
    for name, figures in record["formats"].items():
        known = next(each for each in RUNTIMES if each.replace("_", "-") == name or name.partition("-")[0] == each)
        assert (figures["jail"] == "yes") == (known in JAILED_FORMATS)
        equal, _, rows = figures["equal_rows"].partition(" of ")
        assert equal == rows
