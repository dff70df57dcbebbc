"""`modelyard convert`: a model of another format as ONNX, if both answer alike."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from modelyard.cli.publish import check_source
from modelyard.cli.terminal.files import NPY_MAGIC, parse_json, read_csv, read_npy, read_source, written
from modelyard.cli.terminal.options import AsJson
from modelyard.cli.terminal.output import print_facts, print_json, progress, say
from modelyard.core.clock import SystemClock
from modelyard.core.errors import CommandError
from modelyard.core.settings import ModelsSettings, load_settings
from modelyard.core.types import Array, LoadedModel, Signature
from modelyard.models.load import SEED, decode_example
from modelyard.models.manifest import Manifest
from modelyard.models.report import CheckOptions, CheckReport
from modelyard.models.rows import seeded_rows
from modelyard.models.stage import stage_file, stage_folder

app = typer.Typer()

TOLERANCE = 1e-4
"""What numbers of float32 can keep over some hundred additions."""
MADE_UP_ROWS = 256
ENTRY = "model.onnx"


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="scikit-learn, LightGBM or XGBoost.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The ONNX file to write.")],
    sample: Annotated[
        Path | None, typer.Option(help="Rows to compare on: CSV with a header, NPY, or a JSON request.", metavar="FILE")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="How far two answers may be apart: relative above 1, else absolute.")
    ] = TOLERANCE,
    as_json: AsJson = False,
) -> None:
    """Convert a model to ONNX, compare the answers of both, and say how much faster single rows are.

    Without a sample the rows are made up, for trees around their thresholds too. If the answers are further apart than
    the tolerance, nothing is written.

    Example: `modelyard convert model.ubj model.onnx --sample rows.csv`
    """
    check_source(source)
    with progress("Converting", None, quiet=as_json):
        content, report, found = _convert(source, sample, tolerance)
    with written(out) as file:
        file.write(content)
    said = {
        "source": str(source), "format": report.format, "out": str(out), "size_bytes": len(content),
        "sample": "made up" if sample is None else str(sample), "rows": found.rows, "tolerance": found.tolerance,
        "largest_difference": found.largest, "labels_differ": found.labels_differ,
        "row_us_before": round(found.before_us, 1), "row_us_after": round(found.after_us, 1),
        "times_faster": round(found.faster, 2),
    }  # fmt: skip
    if as_json:
        print_json(said)
        return
    print_facts({name.replace("_", " ").capitalize(): value for name, value in said.items()})
    say(f"Single rows take {found.before_us:.0f} µs before, {found.after_us:.0f} µs as ONNX: {_times(found.faster)}.")


def _times(faster: float) -> str:
    return f"{faster:.1f} times faster" if faster >= 1 else f"{1 / faster:.1f} times slower"


def _convert(source: Path, sample: Path | None, tolerance: float) -> tuple[bytes, CheckReport, Any]:
    from modelyard.runtimes.child import check_in_child
    from modelyard.runtimes.conversion.comparison import compare
    from modelyard.runtimes.conversion.rows_of_trees import rows_of_trees
    from modelyard.runtimes.conversion.to_onnx import to_onnx

    models = load_settings().models
    options = _options(models)
    with tempfile.TemporaryDirectory(prefix="modelyard-") as place:
        folder, made = Path(place) / "before", Path(place) / "after"
        for each in (folder, made):
            each.mkdir()
        _stage(source, folder, models.max_version_bytes)
        # As at a publish: the file is met first by a process that it may harm.
        report = check_in_child(folder, options)
        rows = _rows(sample, report.signature)
        content = to_onnx(report.format, folder / report.entry, report.signature, options.for_runtime())
        if sample is None:
            more = rows_of_trees(content, rows.shape[1], MADE_UP_ROWS, SEED)
            rows = np.concatenate([rows, more]) if len(more) else rows
        (made / ENTRY).write_bytes(content)
        before = _load(folder, report.format, report.entry, report.signature, options)
        after = _load(made, "onnx", ENTRY, None, options)
        found = compare(before, after, rows, tolerance, SystemClock())
    if not found.agrees:
        raise CommandError(
            "conversion_differs",
            f"The answers differ by up to {found.largest:.3g} on {found.rows} rows, and {found.labels_differ} labels "
            "are others; nothing was written.",
            field="--tolerance",
            expected=tolerance,
            got=found.largest,
        )
    return content, report, found


def _options(models: ModelsSettings) -> CheckOptions:
    return CheckOptions(
        trusted_types=models.trusted_types,
        timeout_s=models.publish_timeout_s,
        memory_bytes=models.publish_memory_bytes,
        max_version_bytes=models.max_version_bytes,
    )


def _stage(source: Path, folder: Path, max_bytes: int) -> None:
    """A private copy; what the owner adds in `modelyard.json` is for a publish."""
    if source.is_dir():
        stage_folder(source, folder, max_bytes)
        (folder / "modelyard.json").unlink(missing_ok=True)
    else:
        stage_file(source, folder, f"model{source.suffix}", max_bytes)


def _load(folder: Path, form: str, entry: str, signature: Signature | None, options: CheckOptions) -> LoadedModel:
    from modelyard.runtimes import RUNTIMES

    known = signature or RUNTIMES[form].inspect(folder, entry, options.for_runtime()).signature
    return RUNTIMES[form].load(folder, Manifest(form, entry, (), known), options.for_runtime())


def _rows(sample: Path | None, signature: Signature) -> Array:
    """The sample's rows in the order of the model's columns, or made-up ones; CommandError("file_unreadable")."""
    given = signature.inputs[0]
    if sample is None:
        made = seeded_rows(signature, MADE_UP_ROWS, SEED)[given.name]
        made[0] = 0  # some trees take zero for a missing value, which ONNX does not
        return made
    body, name = read_source(str(sample)), str(sample)
    if body.startswith(NPY_MAGIC):
        rows = read_npy(body, name)
    elif body.lstrip()[:1] == b"{":
        rows = (decode_example(signature, parse_json(body, name)) or {})[given.name]
    else:
        rows = _matrix(read_csv(body, name), given.columns, name)
    if rows.ndim != 2 or rows.shape[1] != given.shape[1] or not len(rows):
        raise _unfit(name, f"it has the shape {list(rows.shape)}, the model takes {list(given.shape)}")
    return rows


def _matrix(items: list[dict[str, Any]], columns: tuple[str, ...], name: str) -> Array:
    """By the model's names of columns where it has some, else in the order of the file."""
    wanted = columns or tuple(items[0] if items else ())
    missing = [column for column in wanted if items and column not in items[0]]
    if missing:
        raise _unfit(name, f"it has no column `{missing[0]}`")
    try:
        return np.array([[_number(item, column) for column in wanted] for item in items], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _unfit(name, f"not every cell is a number: {error}") from None


def _number(item: Mapping[str, Any], column: str) -> float:
    """An empty cell is a missing value."""
    value = item[column]
    return float("nan") if value == "" else float(value)


def _unfit(name: str, why: str) -> CommandError:
    return CommandError("file_unreadable", f"`{name}` does not fit the model: {why}.", field="--sample")
