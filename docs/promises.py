"""Writes docs/promises.md: what is promised, which tests prove it, and the figures of the last long run.

Run it with `python docs/promises.py`. A test names what it proves at the beginning of its docstring, or inside it
(`K3 P1: …`). The figures come from tests/faults/figures.json, which `make test-long` writes.
tests/docs/test_promises.py fails when an identifier has neither a test nor a reason, and when the page names a test or
a figure that is no more.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "promises.md"
FIGURES = ROOT / "tests" / "faults" / "figures.json"
IDENTIFIER = re.compile(r"\b(?:P(?:1[0-3]|[1-9])|[LKFDSZ](?:[1-9]|1[0-9]))\b")

PROMISES: Mapping[str, str] = {
    "P1": "**Logged before answered.** Each 2xx prediction has exactly one durable record with the id, the input, the "
    "output, the version and the arm, whatever process is killed; with `journal.durability = host` after a loss of "
    "power too.",
    "P2": "**No request is lost in a switch.** During a change of traffic, a reload, a replacement of processes or a "
    "stop every request gets one whole answer from exactly one version.",
    "P3": "**Your answer is yours.** Whatever happens to a neighbour in the batch, nobody gets another's answer.",
    "P4": "**Everything is bounded.** Beyond capacity the surplus is refused fast, with `Retry-After`; memory, "
    "connections, disk and time have bounds that are settings.",
    "P5": "**The bytes served are the bytes published**, checked by SHA-256.",
    "P6": "**The state of a release is atomic**: at any kill the old table or the new one, never a mixture.",
    "P7": "**No key, no answer**, on every route but health.",
    "P8": "**Publishing never runs a model's code in the server.**",
    "P9": "**Health tells the truth.** Ready means that predictions are answered; it is false before a stop.",
    "P10": "**Clocks do not matter.** A jump of the wall clock changes stamps, never limits or deadlines.",
    "P11": "**A neighbour's failure is contained**: database, disk, or a model that kills its workers.",
    "P12": "**Same subject, same arm.**",
    "P13": "**Data leaves on time**, nothing else does, and a certificate says so.",
}

TESTS: Mapping[str, str] = {
    "L1": "steady load at seven tenths of capacity: no error, bounded latency",
    "L2": "two, five and ten times capacity: goodput stays, refusals are fast",
    "L3": "bursts of ten times capacity",
    "L4": "q + k requests on q places: exactly k refused",
    "L5": "idle connections: memory each, others unhurt",
    "L6": "a soak of mixed good and bad callers: memory and descriptors stay",
    "L7": "a planted leak fails the soak's gate",
    "L8": "a slow model does not hold up a fast one",
    "L9": "what the log costs",
    "L10": "analysis of a large log beside load",
    "L11": "a limit taken by many at once, over processes: exactly that many pass",
    "L12": "a start with a large spool: ready at once",
    "L13": "each caller of a batch gets its own rows",
    "K1": "kill -9 at each point of a request's way",
    "K2": "kill of the process that runs the model: only its callers notice",
    "K3": "kill at the N-th system call, for every N",
    "K4": "hundreds of random kills under load",
    "K5": "exit, crash, stop, endless loop, held lock, no memory",
    "K6": "a version that always kills its worker is taken out",
    "K7": "callers that leave before, in and after their batch",
    "K8": "SIGTERM with requests in flight",
    "K9": "SIGTERM while starting, loading, publishing or making the schema, or with a model that hangs",
    "K10": "the parent is killed: no orphan stays",
    "K11": "a loop that stands still",
    "F1": "the database is away, at the start and under load",
    "F2": "the database is slow, or hangs",
    "F3": "a connection to the database cut in a commit",
    "F4": "the database fails over, or can only be read",
    "F5": "a full disk",
    "F6": "a disk that cannot sync",
    "F7": "a spool with a torn, cut or altered end",
    "F8": "the object store is away at the start",
    "F9": "the object store answers late, wrong, or not at all",
    "F10": "damaged and hostile model files",
    "F11": "clocks that jump",
    "F12": "clients that half-close, reset, dribble, or never read",
    "F13": "slowloris",
    "F14": "an idle load balancer's race with keep-alive",
    "F15": "no descriptor left",
    "D1": "blue-green switches under load",
    "D2": "replacement of the processes under load",
    "D3": "a kill at each point of a release",
    "D4": "a new version that does not load, or answers wrong",
    "D5": "a canary's guard rolls back",
    "D6": "the split of an experiment",
    "D7": "load, route and unload by many threads",
    "D8": "two operators at once",
    "D9": "old code on the new schema and the reverse",
    "D10": "backup, destruction, restore",
    "D11": "the infrastructure's plan",
    "S1": "every route with every wrong key",
    "S2": "guessing keys",
    "S3": "the time a wrong key takes",
    "S4": "no secret in any log or table",
    "S5": "request smuggling",
    "S6": "bounds of bodies, heads and JSON",
    "S7": "what a byte sent costs in memory and time",
    "S8": "archives that expand",
    "S9": "names and paths that lead outside",
    "S10": "pickle is never loaded",
    "S11": "the confined child tries to get out",
    "S12": "addresses in fields are never fetched",
    "S13": "forged lines in logs",
    "S14": "SQL in parameters",
    "S15": "scripts and frames in the console",
    "S16": "secrets at rest",
    "S17": "the supply chain",
    "S18": "an altered audit log is found out",
    "S19": "retention and erasure",
    "Z1": "requests generated from the OpenAPI document",
    "Z2": "coverage-guided fuzzing of every parser",
    "Z3": "raw bytes to the socket",
    "Z4": "mutated model files",
    "Z5": "a state machine against a small reference",
    "Z6": "batched, alone and offline agree",
}

ALSO: Mapping[str, tuple[str, ...]] = {
    "F1": ("tests/unit/journal/test_drain.py::test_a_database_that_is_away_is_tried_again_with_bounded_pauses",
           "tests/unit/http/test_snapshots.py::test_a_database_that_is_away_changes_nothing"),
    "F11": ("tests/unit/limits/test_gcra.py::test_a_clock_that_starts_anew_locks_nobody_out",),
    "D4": ("tests/unit/http/test_snapshots.py::test_readiness_names_what_is_missing",
           "tests/journey/test_publish.py::test_refused_models_leave_nothing"),
    "D11": ("tests/infra/test_infra_plans.py::test_every_stack_plans_and_passes_every_check",),
    "S8": ("tests/security/test_bounds.py::test_a_bomb",
           "tests/unit/models/test_tar_archive.py::test_tricks_are_refused_and_touch_nothing"),
    "Z6": ("tests/contract/test_batches.py::test_everybody_gets_f_of_the_own_input",),
}  # fmt: skip
"""Tests that prove something without naming it."""

NOT_YET: Mapping[str, str] = {
    "L1": "measured by `python -m bench`, not held by a test: a shared machine has no steady rate",
    "L2": "measured by `python -m bench.overload`",
    "L3": "measured with L2",
    "L9": "measured by `python -m bench`",
    "L10": "comes with analytics",
    "F2": "comes with the server databases",
    "F4": "comes with the server databases",
    "F14": "needs a load balancer in between; the keep-alive time is above its idle time",
    "D3": "comes with the releases", "D5": "comes with the releases", "D6": "comes with the releases",
    "S12": "no field of a request is an address so far",
    "S14": "every statement is built by SQLAlchemy Core with parameters; payloads are not tried yet",
    "S15": "comes with the console",
    "S16": "comes with the infrastructure's drills",
    "S17": "comes with the release pipeline",
    "S18": "comes with the audit log's verification",
    "Z4": "damaged model files are tried one by one (F10); none are mutated at random yet",
}  # fmt: skip
"""Why something has no test, unless one names it meanwhile."""


class Proof(NamedTuple):
    """One test that names an identifier."""

    path: str
    test: str
    promise: str
    is_long: bool


def proofs() -> dict[str, list[Proof]]:
    """The tests by the identifiers that their docstrings, or their module's, name; KeyError for one in ALSO that is
    no more."""
    found: dict[str, list[Proof]] = {}
    named: dict[str, Proof] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for proof, text in _tests(path):
            named[f"{proof.path}::{proof.test}"] = proof
            for identifier in sorted(set(IDENTIFIER.findall(text))):
                found.setdefault(identifier, []).append(proof)
    for identifier, tests in ALSO.items():
        found.setdefault(identifier, []).extend(named[test] for test in tests)
    return found


def _tests(path: Path) -> Iterator[tuple[Proof, str]]:
    tree = ast.parse(path.read_text())
    module = ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            text = ast.get_docstring(node) or ""
            is_long = any(ast.unparse(mark).endswith("mark.long") for mark in node.decorator_list)
            own = IDENTIFIER.findall(text)
            name = str(path.relative_to(ROOT))
            yield Proof(name, node.name, " ".join(text.split()), is_long), text if own else module


def page() -> str:
    """The whole page."""
    found = proofs()
    parts = [
        "# What is promised, and what proves it",
        "<!-- Written by docs/promises.py; change the tests, not this page. -->",
        "*Acknowledged* means: the caller read the last byte of a 2xx. Each promise below is held by the tests that "
        "name it in their docstrings; those marked *long* run with `make test-long`.",
        "## Promises",
        *(_promise(one, text, found.get(one, [])) for one, text in PROMISES.items()),
        "## Tests by identifier",
        _table(("", "what is tried", "where"), [(one, text, _where(one, found)) for one, text in TESTS.items()]),
        "## Figures of the last long run",
        figures(),
    ]
    return "\n\n".join(parts) + "\n"


def _promise(identifier: str, text: str, tests: list[Proof]) -> str:
    if not tests:
        return f"### {identifier}\n\n{text}\n\nNot tested yet: {NOT_YET[identifier]}."
    files: dict[str, int] = {}
    for test in tests:
        files[test.path] = files.get(test.path, 0) + 1
    listed = ", ".join(f"[{Path(path).stem}](../{path}) ({count})" for path, count in files.items())
    return f"### {identifier}\n\n{text}\n\nTests: {listed}."


def _where(identifier: str, found: Mapping[str, list[Proof]]) -> str:
    tests = found.get(identifier)
    if not tests:
        return f"*not yet:* {NOT_YET[identifier]}"
    shown = [f"[{one.test.removeprefix('test_')}](../{one.path})" + " (long)" * one.is_long for one in tests[:6]]
    return "; ".join(shown) + (f"; and {len(tests) - 6} more" if len(tests) > 6 else "")


def figures() -> str:
    """The figures of the last long run, as a table."""
    if not FIGURES.exists():
        return "None is kept yet: `make test-long` writes them."
    kept = json.loads(FIGURES.read_text())
    rows = [
        (name, figures.pop("at"), ", ".join(f"{word.replace('_', ' ')} {value}" for word, value in figures.items()))
        for name, figures in kept.items()
    ]
    return _table(("run", "on", "figures"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
