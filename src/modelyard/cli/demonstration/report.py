"""The demo's report, for people (rich) and for programs (JSON). It fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelyard.cli.demonstration.calling import Form
from modelyard.cli.demonstration.claims import PERCENTILES, Accuracy, Claim, Latency, accuracies, claims, latencies
from modelyard.cli.demonstration.play import CONNECTIONS, Findings
from modelyard.cli.demonstration.server import WORKERS


def report_json(findings: Findings, took_s: float) -> dict[str, Any]:
    """The whole report as JSON values."""
    return {
        "holds": all(claim.holds for claim in claims(findings)),
        "claims": [{"claim": one.name, "seen": one.seen, "holds": one.holds} for one in claims(findings)],
        "accuracy": [
            {"model": one.lesson.model, "version": one.lesson.version, "rows": len(one.lesson.rows),
             "offline": one.lesson.accuracy, "over_http": {str(form): share for form, share in one.by_form.items()}}
            for one in accuracies(findings)
        ],
        "latency_ms": [
            {"form": one.form, "rows": one.rows, "requests": one.requests,
             **{f"p{share}": round(took, 3) for share, took in zip(PERCENTILES, one.took_ms, strict=True)}}
            for one in latencies(findings)
        ],
        "switch_s": round(findings.switch.done_s - findings.switch.asked_s, 3),
        "revoked_after_s": round(findings.revoked_after_s, 3),
        "log_waited_s": round(findings.logged.waited_s, 3),
        "record": findings.logged.record,
        "took_s": round(took_s, 1),
    }  # fmt: skip


def print_report(findings: Findings, console: Console, took_s: float) -> None:
    """Prints it all, the verdict last."""
    parts = (
        _part("Accuracy on rows that no version was trained on", _accuracy_table(accuracies(findings))),
        _part("Milliseconds at the client, on one connection", _latency_table(latencies(findings))),
        _part("One record of the prediction log", _record(findings.logged.record)),
        _part(
            f"Claims ({CONNECTIONS} connections and {WORKERS} workers during the switch)",
            _claim_table(claims(findings)),
        ),
    )
    console.print()
    console.print(Group(*parts))
    console.print(_verdict(claims(findings), took_s))


def print_commands(title: str, lines: Sequence[str], console: Console) -> None:
    """Prints lines that can be pasted into a shell: none is broken, however narrow the terminal."""
    console.print()
    console.print(Text(title, style="bold"))
    for line in lines:
        console.print(Text(f"  {line}", style="dim" if line.startswith("#") else ""), soft_wrap=True)


def _part(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(title, style="bold"), Padding(body, (0, 0, 1, 2)))


def _table(*columns: str, right_from: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place >= right_from else "left", no_wrap=True)
    return table


def _accuracy_table(found: Sequence[Accuracy]) -> Table:
    table = _table("model", "", "learned by", "rows", "offline", "JSON", "binary", "/v1", right_from=3)
    for one in found:
        lesson = one.lesson
        shares = (f"{one.by_form[form]:.2%}" for form in Form)
        named = (lesson.model, lesson.version, lesson.algorithm, str(len(lesson.rows)), f"{lesson.accuracy:.2%}")
        table.add_row(*named, *shares)
    return table


def _latency_table(found: Sequence[Latency]) -> Table:
    table = _table("", "rows", "requests", *(f"p{share}" for share in PERCENTILES))
    for one in found:
        table.add_row(one.form, str(one.rows), f"{one.requests:,}", *(f"{took:.2f}" for took in one.took_ms))
    return table


def _record(record: Mapping[str, Any]) -> Text:
    latency, sizes = record["latency"], record["sizes"]
    rows = {
        "id, time": f"{record['id']}  {record['time'][:23]}Z",
        "client": f"{record['client']}  key {record['key_id']}",
        "version": f"{record['endpoint']} → {record['model']} {record['version']}  status {record['status']}",
        "inputs": _brief(record["inputs"]),
        "outputs": _brief(record["outputs"]),
        "latency": f"{latency['queue_us']} µs waited, {latency['compute_us']} µs ran, {latency['total_us']} µs in all",
        "sizes": f"{sizes['request_bytes']} bytes in, {sizes['answer_bytes']} bytes out",
    }
    lines = [Text.assemble((name.ljust(10), "dim"), text) for name, text in rows.items()]
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _brief(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def _claim_table(found: Sequence[Claim]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for one in found:
        mark = Text("✓", "bold green") if one.holds else Text("✗", "bold red")
        table.add_row(mark, Text(one.name), Text(one.seen, "" if one.holds else "bold red"))
    return table


def _verdict(found: Sequence[Claim], took_s: float) -> Text:
    broken = sum(not one.holds for one in found)
    if broken:
        return Text(f"{broken} of {len(found)} claims failed ({took_s:.0f} s).", "bold red")
    return Text(f"All {len(found)} claims hold ({took_s:.0f} s).", "bold green")
