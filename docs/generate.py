"""Writes docs/reference/: settings, errors, events, routes and commands, from the code that defines them.

`python docs/generate.py` writes the pages; tests/docs/test_reference.py fails when a page is not what the code says.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelyard.cli import exits as exits_module
from modelyard.cli.exits import Exit, exit_code
from modelyard.cli.main import COMMANDS
from modelyard.cli.main import app as command_line
from modelyard.core import events
from modelyard.core.errors import FAMILIES, ModelyardError
from modelyard.core.settings import MIB, Settings
from modelyard.core.types import Surface
from modelyard.http.errors import NEVER_OVER_HTTP, status_of
from modelyard.http.management import TABLES
from modelyard.http.wire import PREDICT_ROUTES, predict_target

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py; change the code, not this page. -->"
FORMS: Mapping[Surface, str] = {
    Surface.OIP: "Open Inference Protocol, JSON or binary",
    Surface.PREDICTIONS: "Items with named features",
    Surface.TFSERVING: "TensorFlow Serving, rows (`instances`) or columns (`inputs`)",
    Surface.INVOCATIONS: "MLflow and SageMaker: data frames, `instances`, `inputs`, CSV, NumPy arrays; "
    "the model by `x-modelyard-model`, `X-Amzn-SageMaker-Target-Model` or `?model=`",
}
"""What a predict route takes."""
SIGNS: Mapping[type, str] = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def page(title: str, *parts: str) -> str:
    """A page with its title."""
    return "\n\n".join((f"# {title}", NOTE, *parts)) + "\n"


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def settings() -> str:
    """Every setting, by section."""
    intro = (
        "A setting comes from a TOML file (`--config`, or `MODELYARD_CONFIG`), the environment, and the command line;\n"
        "the later wins. `modelyard serve` prints the effective ones at its start. Unknown names are refused."
    )
    sections = [table(("setting", "default", "bounds", "meaning"), _settings_rows(Settings, ""))]
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            rows = table(("setting", "default", "bounds", "meaning"), _settings_rows(section, f"{name}."))
            sections.append(f"## {name}\n\n{inspect.cleandoc(section.__doc__ or '')}\n\n{rows}")
    example = "`http.port` is `port` under `[http]` in the file, and `MODELYARD_HTTP__PORT` in the environment."
    return page("Settings", intro, example, *sections)


def _settings_rows(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        yield f"`{prefix}{name}`", _default(field), _bounds(field), field.description or ""


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" + (
        f" ({value // MIB} MiB)" if isinstance(value, int) and value >= MIB and not value % MIB else ""
    )


def _bounds(field: FieldInfo) -> str:
    signs = [_bound(limit) for limit in field.metadata if type(limit) in SIGNS]
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    return ", ".join(signs)


def _bound(limit: Any) -> str:
    value = next(getattr(limit, name) for name in ("ge", "gt", "le", "lt") if hasattr(limit, name))
    return f"{SIGNS[type(limit)]} {value}"


def errors() -> str:
    """Every code, by family, with its status and exit code."""
    intro = (
        "Over HTTP every error is\n"
        '`{"error": "<one sentence>", "code": "<stable>", "detail": {…}, "request_id": "…"}`.\n'
        "`detail` names the `field`, what was `expected`, what came (`got`) and an `example`, where they apply.\n"
        "On the command line it is one line on standard error, and an exit code."
    )
    said = dict(re.findall(r"^\| (\d+) \| (.+) \|$", exits_module.__doc__ or "", re.MULTILINE))
    rows = ((str(int(code)), said[str(int(code))]) for code in Exit)
    exits = "## Exit codes\n\n" + table(("code", "meaning"), rows)
    return page("Errors", intro, *map(_family, FAMILIES), exits)


def _family(family: type[ModelyardError]) -> str:
    head = f"## {family.__name__}\n\n{inspect.cleandoc(family.__doc__ or '')}\n\n"
    return head + table(("code", "status", "exit code"), (_code(family, code) for code in sorted(family.codes)))


def _code(family: type[ModelyardError], code: str) -> tuple[str, ...]:
    error = family(code, "")
    return f"`{code}`", "" if family in NEVER_OVER_HTTP else str(status_of(error)), str(int(exit_code(error)))


def event_page() -> str:
    """Every event of the log."""
    intro = "The log is one JSON object a line, on standard error. `event` is one of these names; never a credential."
    return page("Events", intro, table(("event", "meaning"), _events()))


def _events() -> Iterator[tuple[str, ...]]:
    """The members of the vocabulary, each with the docstring under it."""
    (body,) = (
        node.body for node in ast.parse(inspect.getsource(events)).body
        if isinstance(node, ast.ClassDef) and node.name == events.Event.__name__
    )  # fmt: skip
    for member, text in pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr):
            yield f"`{ast.literal_eval(member.value)}`", str(ast.literal_eval(text.value))


def routes() -> str:
    """Every route, with the scope that it needs."""
    intro = (
        "A key goes into `x-api-key`, or `Authorization: Bearer`. Routes without a scope need none.\n"
        "`x-request-id` is on every answer, `RateLimit-*` on every authenticated one,\n"
        "`x-prediction-id` and `x-model-version` on every answer to a routed predict request."
    )
    predict = "## predict\n\n" + table(
        ("method", "path", "scope", ""), (("POST", f"`{path}`", "`predict`", _form(path)) for path in PREDICT_ROUTES)
    )
    return page("Routes", intro, predict, *map(_route_table, TABLES))


def _form(path: str) -> str:
    target = predict_target(path.replace("{", "").replace("}", ""))
    form = "" if target is None else FORMS[target.surface]
    return f"{form}{'; this version, whatever the traffic says' if '{version}' in path else ''}."


def _route_table(declared: Any) -> str:
    rows = (
        (route.method, f"`{route.path}`", _scope(route.endpoint), inspect.cleandoc(route.endpoint.__doc__ or ""))
        for route in declared
    )
    return f"## {declared.tag}\n\n" + table(("method", "path", "scope", ""), rows)


def _scope(endpoint: Callable[..., Any]) -> str:
    scope = endpoint.__modelyard_needs__.scope  # type: ignore[attr-defined]
    return "" if scope is None else f"`{scope}`"


def commands() -> str:
    """Every command with its arguments and options."""
    intro = (
        "Every command but `demo`, `serve`, `convert` and `copy` takes `--data DIR` for a folder,\n"
        "or `--server URL --key KEY`, and `--json`; `backup`, `restore` and `migrate` take folders alone.\n"
        "Exit codes are on the page of [errors](errors.md)."
    )
    root = typer.main.get_command(command_line)
    context: Any = None
    parts = [part for name in COMMANDS for part in _command(f"modelyard {name}", root.get_command(context, name))]  # type: ignore[attr-defined]
    return page("Commands", intro, *parts)


def _command(name: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner:
        for word, each in inner.items():
            yield from _command(f"{name} {word}", each)
        return
    arguments = " ".join(_argument(one) for one in command.params if one.param_type_name == "argument")
    rows = (
        (" ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts)), one.help or "")
        for one in command.params
        if one.param_type_name == "option" and one.name not in ("help", "install_completion", "show_completion")
    )
    yield f"## {' '.join(filter(None, (name, arguments)))}\n\n{inspect.cleandoc(command.help or '')}\n\n" + table(
        ("option", "meaning"), rows
    )


def _argument(one: Any) -> str:
    return str(one.metavar or one.name.upper())


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings,
    "errors.md": errors,
    "events.md": event_page,
    "routes.md": routes,
    "commands.md": commands,
}


def main() -> None:
    """Writes all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write())


if __name__ == "__main__":
    main()
