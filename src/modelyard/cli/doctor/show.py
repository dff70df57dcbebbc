"""The findings as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from modelyard.cli.doctor.findings import Finding, State
from modelyard.cli.terminal.output import cell, standard_output

SIGNS = {State.OK: ("✓", "green"), State.WARNING: ("!", "yellow"), State.PROBLEM: ("✗", "red")}


def print_findings(findings: Sequence[Finding]) -> None:
    """One line a finding, by area, remedies below; then the sum."""
    console = standard_output()
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("", "", "", ""):
        table.add_column(column, overflow="fold")
    area = ""
    for finding in findings:
        sign, colour = SIGNS[finding.state]
        shown = finding.area if finding.area != area else ""
        area = finding.area
        table.add_row(Text(shown, "bold"), Text(sign, colour), Text(finding.name), Text(cell(finding.said)))
        if finding.remedy:
            table.add_row("", "", "", Text(f"→ {cell(finding.remedy)}", colour))
    console.print(table)
    counts = {state: sum(finding.state == state for finding in findings) for state in State}
    words = [
        f"{counts[state]} {word}{'s' if counts[state] != 1 else ''}"
        for state, word in ((State.PROBLEM, "problem"), (State.WARNING, "warning"))
    ]
    console.print(Text(f"\n{', '.join(words)}, {counts[State.OK]} fine."))
