"""`modelyard serve`: the server, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from modelyard.audit.event import without_url_passwords
from modelyard.core.settings import Settings, load_settings
from modelyard.runtimes.threads import Threads, size_threads
from modelyard.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from modelyard.app.server import Started

app = typer.Typer()
console = Console()


@app.command(name="serve")
def serve_command(
    data: Annotated[Path | None, typer.Option(help="The data folder; made private (0700).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="HTTP worker processes.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM. Read again on SIGHUP.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls: Annotated[str | None, typer.Option(help="`self-signed`: TLS with a certificate made at the start.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
) -> None:
    """Serves the models of a data folder, with keys, limits and the prediction log.

    Every setting can also be given as MODELYARD_<SECTION>__<KEY>.

    Example: modelyard serve --data modelyard-data --port 8080 --workers 2
    """
    http = {"http.host": host, "http.port": port, "http.tls": tls, "http.tls_cert": tls_cert, "http.tls_key": tls_key}
    settings = load_settings(config, data=data, workers=workers, **http)
    configure_logging(settings.log.level)
    environment: dict[str, str] = dict(os.environ)
    threads = size_threads(settings, environment)
    sized = {name: environment[name] for name in environment if environment.get(name) != os.environ.get(name)}
    os.environ.update(sized)  # before numpy is imported: the workers are forked from this process
    from modelyard.app.server import serve

    status = serve(settings, sized, lambda started: show_start(settings, threads, started), show_ready)
    raise typer.Exit(status)


def show_start(settings: Settings, threads: Threads, started: Started) -> None:
    """The effective settings with secrets starred, the machine as seen, and the first administrator's key."""
    table = Table(title="Effective settings", title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in flat(settings.model_dump(mode="json")):
        table.add_row(f"[dim]{name}[/]", "unset" if value in (None, "", []) else str(value))
    console.print(table)
    quota = "none" if threads.quota_cores is None else f"{threads.quota_cores:g}"
    console.print(f"\n[bold]Machine[/]  cores {threads.cores} · cgroup quota {quota} · workers {settings.workers}")
    libraries = " · ".join(f"{name} {count}" for name, count in threads.libraries.items())
    console.print(f"[bold]Threads[/]  {libraries}\n")
    if started.admin_key is not None:
        console.print(
            Panel(
                started.admin_key.get_secret_value(),
                title="The administrator's key, shown once",
                subtitle="keep it; only its hash is stored",
                expand=False,
            ),
            soft_wrap=True,
        )
    if started.certificate is not None:
        until, fingerprint = started.certificate.not_after, started.certificate.fingerprint
        console.print(f"[bold]TLS[/]      valid until {until:%Y-%m-%d} · SHA-256 {fingerprint}\n", soft_wrap=True)
    elif not is_loopback(settings.http.host):
        console.print("[yellow]Keys travel in the clear: this address is not a loopback, and TLS is off.[/]")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def show_ready(started: Started) -> None:
    """Where the server is."""
    console.print(f"Serving on [bold]{started.url}[/]  (stop with Ctrl-C)")


def flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """`{"http": {"port": 1}}` as `("http.port", 1)`, in order; passwords in URLs are starred."""
    rows: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, without_url_passwords(value) if isinstance(value, str) else value))
    return rows
