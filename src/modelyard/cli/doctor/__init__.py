"""`modelyard doctor`: looks at everything that a server stands on, changes nothing, and says the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.terminal.options import AsJson

app = typer.Typer()


@app.command(name="doctor")
def doctor_command(
    data: Annotated[Path | None, typer.Option(help="The data folder of the server.", metavar="DIR")] = None,
    host: Annotated[str | None, typer.Option(help="Address that it would listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port that it would listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="HTTP worker processes.")] = None,
    config: Annotated[Path | None, typer.Option(help="The server's TOML file with settings.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at machine, folder and settings; each finding with its remedy. Nothing is changed.

    Give it what the server is given. Exit code: 0 if there is no problem (warnings are none), 1 if there is one.

    Example: `modelyard doctor --data modelyard-data --workers 2`
    """
    from modelyard.cli.doctor.show import print_findings
    from modelyard.cli.terminal.output import print_json

    flags = {"data": data, "workers": workers, "http.host": host, "http.port": port}
    findings, settings = examine(config, flags)
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        said = [finding.as_json() for finding in findings]
        print_json({"ok": not problems, "findings": said, "settings": settings})
    else:
        print_findings(findings)
    raise typer.Exit(1 if problems else 0)


def examine(config: Path | None, flags: dict[str, Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """All findings, and every setting with its origin. With settings that cannot be read, the defaults are looked
    at otherwise."""
    from modelyard.app.folder import DataFolder
    from modelyard.cli.doctor import config as configuration
    from modelyard.cli.doctor import folder as data
    from modelyard.cli.doctor import machine
    from modelyard.cli.doctor.artifacts import artifacts
    from modelyard.cli.doctor.findings import Finding, State, gather
    from modelyard.cli.doctor.jail import jail
    from modelyard.cli.doctor.limits import limits
    from modelyard.core.errors import SettingsError
    from modelyard.core.settings import Settings, load_settings

    listed: list[dict[str, Any]] = []
    findings: list[Finding] = []
    try:
        settings = load_settings(config, **flags)
        where = configuration.origins(settings, _file(config), flags)
        listed = configuration.listed(settings, where)
        findings += configuration.chosen(settings, where)
    except SettingsError as error:
        findings.append(Finding(configuration.AREA, "settings", State.PROBLEM, error.message, _remedy(error)))
        settings = Settings.model_construct()
        if flags["data"] is not None:
            settings = settings.model_copy(update={"data": flags["data"]})
    folder = DataFolder(settings.data)
    findings += gather(configuration.AREA, _bound(configuration.port, configuration.tls, limits, on=(settings, folder)))
    findings += gather(machine.AREA, [machine.system, machine.versions, lambda: machine.kernel(folder.path)])
    findings += gather(machine.AREA, _bound(machine.cores, machine.memory, machine.descriptors, jail, on=(settings,)))
    findings += gather(data.AREA, _bound(data.permissions, data.server, data.clock, on=(folder,)))
    findings += gather(data.AREA, _bound(data.disk, data.database, artifacts, on=(folder, settings)))
    order = [machine.AREA, data.AREA, configuration.AREA]
    return sorted(findings, key=lambda finding: order.index(finding.area)), listed


def _file(config: Path | None) -> Path | None:
    import os

    named = os.environ.get("MODELYARD_CONFIG")
    return config or (Path(named) if named else None)


def _bound(*checks: Callable[..., Any], on: tuple[Any, ...]) -> list[Callable[[], Any]]:
    return [_with(check, on) for check in checks]


def _with(check: Callable[..., Any], on: tuple[Any, ...]) -> Callable[[], Any]:
    def bound() -> Any:
        return check(*on)

    bound.__name__ = check.__name__
    return bound


def _remedy(error: Any) -> str:
    expected = error.detail.get("expected")
    return f"{error.detail.get('field')}: {expected}" if expected else "See docs/reference/settings.md."
