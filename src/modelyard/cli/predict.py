"""`modelyard predict`: rows from a file through a running server, as any client would send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from modelyard.cli.backends import needed_key, running_server
from modelyard.cli.backends.remote import RemoteBackend
from modelyard.cli.terminal.files import NPY_MAGIC, parse_json, read_csv, read_npy, read_source
from modelyard.cli.terminal.options import AsJson, Data, KeyText, Server
from modelyard.cli.terminal.output import print_json, print_table, progress, say
from modelyard.core.errors import CommandError
from modelyard.core.types import DATATYPES, Array
from modelyard.http.forms.asking import check_name

app = typer.Typer()

ITEMS_PER_REQUEST = 100
SHOWN_ROWS = 50
"""So many rows go into the table; `--json` prints all."""


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="The endpoint.")],
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON (a request, items), CSV with a header, or NPY.")],
    version: Annotated[str | None, typer.Option("--version", help="This version, whatever the traffic says.")] = None,
    data: Data = None,
    server: Server = None,
    key: KeyText = None,
    as_json: AsJson = False,
) -> None:
    """Predict rows with a running server: the one at --server, or the one on the data folder.

    Example: `modelyard predict tree rows.csv --key mdy_…`
    """
    name = check_name(model, "model") + ("" if version is None else f"/versions/{check_name(version, 'version')}")
    work = RemoteBackend(running_server(data, server), needed_key(key))
    body = read_source(file)
    try:
        answer = _ask(work, name, body, file, quiet=as_json)
    finally:
        work.close()
    if as_json:
        print_json(answer)
    elif "results" in answer:
        _print_results(answer["results"])
    else:
        _print_outputs(answer["outputs"])


def _ask(work: RemoteBackend, name: str, body: bytes, file: str, quiet: bool) -> dict[str, Any]:
    if body.startswith(NPY_MAGIC):
        return _ask_array(work, name, read_npy(body, file))
    if file.endswith(".csv") or body.lstrip()[:1] not in (b"{", b"["):
        return _ask_items(work, name, read_csv(body, file), quiet)
    found = parse_json(body, file)
    if isinstance(found, dict) and "inputs" in found:
        return _post(work, f"/v2/models/{name}/infer", body)
    items = found.get("items") if isinstance(found, dict) else found
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        return _ask_items(work, name, items, quiet)
    raise CommandError(
        "file_unreadable", f"`{file}` holds neither a request nor items.", field="FILE",
        expected='{"inputs": […]}, {"items": [{…}]} or [{…}]',
    )  # fmt: skip


def _ask_items(work: RemoteBackend, name: str, items: Sequence[Mapping[str, Any]], quiet: bool) -> dict[str, Any]:
    """All items, a hundred a request; the results are numbered through."""
    results: list[dict[str, Any]] = []
    ids: list[str] = []
    answer: dict[str, Any] = {}
    with progress(f"Predicting {name}", len(items), quiet=quiet) as done:
        for start in range(0, max(len(items), 1), ITEMS_PER_REQUEST):
            part = items[start : start + ITEMS_PER_REQUEST]
            answer = _post(work, f"/v1/models/{name}/predictions", orjson.dumps({"items": part}))
            results += [{**result, "index": start + result["index"]} for result in answer["results"]]
            ids.append(answer["prediction_id"])
            done(len(part))
    return {**answer, "prediction_id": ids[0], "prediction_ids": ids, "results": results}


def _ask_array(work: RemoteBackend, name: str, array: Array) -> dict[str, Any]:
    """One array for a model with one input, in the protocol's binary form; the answer is JSON."""
    inputs = orjson.loads(work.ask("GET", f"/v2/models/{name}").data)["inputs"]
    if len(inputs) != 1:
        raise CommandError("usage_invalid", f"`{name}` takes {len(inputs)} inputs, NPY holds one.", field="FILE")
    spec = inputs[0]
    kind = DATATYPES[spec["datatype"]]
    if kind == np.dtype(object) or not np.can_cast(array.dtype, kind, "same_kind"):
        raise CommandError(
            "usage_invalid", f"The array's type {array.dtype} does not fit the input `{spec['name']}`.", field="FILE",
            expected=spec["datatype"], got=str(array.dtype),
        )  # fmt: skip
    blob = np.ascontiguousarray(array, kind.newbyteorder("<")).tobytes()
    tensor = {"name": spec["name"], "datatype": spec["datatype"], "shape": list(array.shape)}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(blob)}}]})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return _post(work, f"/v2/models/{name}/infer", head + blob, headers)


def _post(work: RemoteBackend, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    answer = work.ask("POST", path, body, headers or {"content-type": "application/json"})
    found: dict[str, Any] = orjson.loads(answer.data)
    return found


def _print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """One item a line; an item that was refused says why."""
    names = list(dict.fromkeys(name for result in results for name in result.get("output", {})))
    rows = [
        [result["index"], *(result.get("output", {}).get(name) for name in names), _why(result)]
        for result in results[:SHOWN_ROWS]
    ]
    print_table(("Item", *names, "Error" if any(row[-1] for row in rows) else ""), rows, "No item was sent.")
    _say_more(len(results))


def _why(result: Mapping[str, Any]) -> str:
    error = result.get("error")
    return f"{error['message']} [{error['code']}]" if error else ""


def _print_outputs(outputs: Sequence[Mapping[str, Any]]) -> None:
    """One row of the batch a line, one output a column."""
    columns = {output["name"]: _rows(output) for output in outputs}
    count = max(map(len, columns.values()), default=0)
    rows = [
        [number, *(values[number] if number < len(values) else None for values in columns.values())]
        for number in range(min(count, SHOWN_ROWS))
    ]
    print_table(("Row", *columns), rows, "The answer holds no rows.")
    _say_more(count)


def _rows(output: Mapping[str, Any]) -> list[Any]:
    shape, flat = output["shape"], output["data"]
    if len(shape) < 2 or not shape[0]:
        return list(flat)
    width = len(flat) // shape[0]
    return [flat[start : start + width] for start in range(0, len(flat), width)] if width else []


def _say_more(count: int) -> None:
    if count > SHOWN_ROWS:
        say(f"… and {count - SHOWN_ROWS} more; --json prints all.")
