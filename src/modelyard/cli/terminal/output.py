"""Tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Advance = Callable[[int], None]
"""Says that so many more units are done."""


PIPE_COLUMNS = 200


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """A table, or the sentence `empty`. Texts are shown as they are: no markup of theirs is obeyed."""
    shown = [[cell(value) for value in row] for row in rows]
    console = standard_output()
    if not shown:
        console.print(Text(empty, style="dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in shown:
        table.add_row(*(Text(text) for text in row))
    console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, one a line; those without a value are left out."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value not in (None, "", [], {}, ()):
            table.add_row(Text(name, style="bold"), Text(cell(value)))
    standard_output().print(table)


def say(sentence: str) -> None:
    """One line for people, on standard output."""
    standard_output().print(Text(sentence), soft_wrap=True)


def standard_output() -> Console:
    """Standard output: as wide as the terminal, wide enough for a whole row where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_COLUMNS)


def cell(value: Any) -> str:
    """A value as text in a table; control characters are shown as their codes."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def moment(text: str | None) -> str:
    """A time of an answer to the second, for tables; UTC."""
    return "" if text is None else text[:19].replace("T", " ")


def shares(weights: Mapping[str, int]) -> str:
    """`1: 90 %, 2: 10 %`."""
    return ", ".join(f"{version}: {share} %" for version, share in weights.items())


def size_text(size_bytes: int) -> str:
    """Bytes with a unit of 1024."""
    size, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.{0 if units[0] == 'B' else 1}f} {units[0]}"


@contextmanager
def progress(label: str, total: int | None, in_bytes: bool = False, quiet: bool = False) -> Iterator[Advance]:
    """A bar on standard error while the block runs; nothing where nobody watches (a pipe, `--json`)."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    count = DownloadColumn() if in_bytes else TextColumn("{task.completed:,.0f}")
    with Progress(TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(label, total=total)
        yield lambda units: bar.update(task, advance=units)
