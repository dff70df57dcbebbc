"""`modelyard demo`: the whole road on real data, every claim checked."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from modelyard.cli.demonstration.claims import claims
from modelyard.cli.demonstration.play import Findings, Step, play
from modelyard.cli.demonstration.report import print_commands, print_report, report_json
from modelyard.cli.demonstration.server import WORKERS, DemoServer
from modelyard.cli.demonstration.training import Lesson, check_installed, lessons
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_json

app = typer.Typer(add_completion=False)

LESSONS = 4
PIPE_WIDTH = 100
NEXT = (
    "# once more, and keep the server to play with",
    "modelyard demo --keep",
    "# your own model: a server here, then the file",
    "modelyard serve",
    "modelyard publish NAME model.onnx",
    "# five minutes by hand: README.md; a server of your own: docs/guides/operate.md",
)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server up; say how to reach and stop it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train two classifiers, publish, serve, predict, switch, revoke: on real data, every claim checked.

    Exit code 1 if a claim fails.

    Example: `modelyard demo --keep`
    """
    check_installed()
    begun = time.monotonic()
    with server_for_demo(keep) as server:
        with steps(quiet=as_json) as step:
            with step("Training two models, two versions each", LESSONS) as done:
                made = lessons(done)
            findings = run(made, server, step)
            if not keep:
                with step("Stopping the server", 1) as done:
                    server.stop()
                    done(1)
        took_s = time.monotonic() - begun
        if as_json:
            print_json(report_json(findings, took_s) | (kept(server) if keep else {}))
        else:
            print_report(findings, console(), took_s)
            print_commands("Where to go next", kept_commands(server, made[0]) if keep else NEXT, console())
    if not all(claim.holds for claim in claims(findings)):
        raise typer.Exit(1)


def run(made: Sequence[Lesson], server: DemoServer, step: Step) -> Findings:
    """Starts the server and plays everything with these versions."""
    with step(f"Starting a server with {WORKERS} workers", 1) as done:
        server.start()
        done(1)
    return play(made, server.url, server.admin_key, server.folder, step)


@contextmanager
def server_for_demo(keep: bool) -> Iterator[DemoServer]:
    """A server to start, in a folder of its own; at the end both are gone, whatever happened. `keep` leaves them if
    nothing went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="modelyard-demo-"))
    server = DemoServer(folder)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield server
        if keep:
            server.let_go()
    finally:
        if server.running:
            server.stop()
        if not server.let_gone:
            shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    """SIGTERM ends the demo as Ctrl-C does, so that its server ends too."""
    raise KeyboardInterrupt


@contextmanager
def steps(quiet: bool) -> Iterator[Step]:
    """Progress bars on standard error, one a step; nothing where nobody watches (a pipe, `--json`)."""
    watched = Console(stderr=True)
    columns = (TextColumn("{task.description:<38}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=watched, disable=quiet or not watched.is_terminal) as bars:

        @contextmanager
        def step(name: str, total: int) -> Iterator[Callable[[int], None]]:
            task = bars.add_task(name, total=total)
            yield lambda units: bars.update(task, advance=units)

        yield step


def console() -> Console:
    """Standard output, as wide as the terminal; where it is none, a width that fits everything."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPE_WIDTH)


def kept(server: DemoServer) -> dict[str, Any]:
    """How programs reach and stop the server that stays."""
    return {"url": server.url, "admin_key": server.admin_key, "pid": server.pid, "folder": str(server.folder)}


def kept_commands(server: DemoServer, lesson: Lesson) -> tuple[str, ...]:
    """How people do."""
    return (
        "# the server stays up; this is its administrator's key",
        f"export MODELYARD_SERVER={server.url}",
        f"export MODELYARD_KEY={server.admin_key}",
        "modelyard models list",
        "modelyard predictions list --limit 5",
        f"modelyard keys create me   # then: modelyard predict {lesson.model} rows.csv --key …",
        "# stop it, and remove its folder",
        f"kill {server.pid}; while kill -0 {server.pid} 2>/dev/null; do sleep 1; done; rm -r {server.folder}",
    )
