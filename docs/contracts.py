"""Writes docs/contracts.md: every port, its contract suite, and the adapters that the suite runs on.

Run it with `python docs/contracts.py`. It asks pytest which tests there are, so that the page says what the tests are
parametrised with, and nothing else; `--check` compares instead. tests/docs/test_contracts.py fails when the page is
old, and when a port has neither a suite nor a reason.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "contracts.md"
SOURCES = ("src/modelyard/*/ports.py", "src/modelyard/core/lease.py")
"""Where ports are."""

STORES = ("stores", "data")
"""Fixtures whose parameter is the database under all stores."""


class Suite(NamedTuple):
    """A file of tests/contract, and the fixtures whose parameter is the adapter."""

    file: str
    fixtures: tuple[str, ...] = STORES


SUITES: Mapping[str, Suite] = {
    "auth.KeySource": Suite("test_key_store"),
    "auth.KeyStore": Suite("test_key_store"),
    "auth.UsageStore": Suite("test_usage_store"),
    "audit.AuditLog": Suite("test_audit_log"),
    "models.Registry": Suite("test_registry"),
    "routing.EndpointStore": Suite("test_endpoint_store"),
    "journal.RecordSink": Suite("test_record_sink"),
    "journal.RecordLog": Suite("test_record_log"),
    "journal.OutcomeStore": Suite("test_record_outcomes"),
    "journal.QuarantineLog": Suite("test_record_outcomes"),
    "retention.RetentionStore": Suite("test_retention"),
    "retention.HoldStore": Suite("test_retention"),
    "retention.ErasureStore": Suite("test_retention"),
    "core.Leases": Suite("test_leases"),
    "analytics.AnalyticsStore": Suite("test_analytics"),
    "retention.LeavingRecords": Suite("test_archive"),
    "retention.Archive": Suite("test_archive", ("archive",)),
    "models.ArtifactStore": Suite("test_artifact_store", ("artifacts",)),
    "limits.RateCounter": Suite("test_remote_counter", ("counted",)),
    "limits.RemoteCounter": Suite("test_remote_counter", ("counted",)),
    "models.Runtime": Suite("test_runtime", ("sample",)),
}

ALONE: Mapping[str, str] = {
    "journal.AnswerIndex": "one adapter, in a file of the data folder: `tests/unit/storage/test_kept_answers.py`",
    "models.Steps": "a callback: what a load tells of itself",
    "models.Health": "one adapter: `tests/unit/http/test_health.py`",
    "models.ReportsDeaths": "what a runtime in another process can do more: `tests/contract/test_jailed_runtime.py`",
    "predict.Journal": "held by the spine's own tests: `tests/unit/predict`, `tests/contract/test_turns.py`",
    "predict.Commit": "held by the spine's own tests: `tests/unit/predict/test_group_commit.py`",
    "predict.NoteRefused": "a callback",
    "batching.Job": "what a caller hands over: `tests/unit/batching`",
    "batching.Settle": "a callback",
    "batching.Together": "a callback",
}
"""Ports without a contract suite, and why."""

NAMES: Mapping[str, str] = {"mysql": "mysql (MariaDB)", "dynamodb": "dynamodb (emulator)", "s3": "s3 (emulator)",
                            "bucket": "bucket (emulator)"}  # fmt: skip
MISSING = "–"
TRIED, LONG = "yes", "long"


class Seen:
    """A pytest plugin: for each file and fixture the parameters, and whether the short form has one."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], dict[str, bool]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Behind the hooks of conftest.py, which come first and take out what a database does not have."""
        for item in items:
            for fixture, value in getattr(getattr(item, "callspec", None), "params", {}).items():
                if fixture == "sample":
                    value = value[0]
                if isinstance(value, str):
                    known = self.found.setdefault((item.path.stem, fixture), {})
                    known[value] = known.get(value, False) or item.get_closest_marker("long") is None


def collected() -> Seen:
    """What pytest finds in tests/contract."""
    seen = Seen()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        ended = pytest.main(["--collect-only", "-q", "-m", "long or not long", str(ROOT / "tests" / "contract")],
                            plugins=[seen])  # fmt: skip
    if ended != pytest.ExitCode.OK:
        raise SystemExit(f"the contract suites cannot be collected: {ended}")
    return seen


def ports() -> Iterator[str]:
    """Every Protocol in the files of ports: `station.Name`."""
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and any(_is_protocol(base) for base in node.bases):
                    yield f"{path.parent.name}.{node.name}"


def _is_protocol(base: ast.expr) -> bool:
    return isinstance(base, ast.Name) and (base.id == "Protocol" or base.id == "KeySource")


def adapters(seen: Seen, suite: Suite) -> dict[str, str]:
    """The adapters that a suite runs on."""
    merged: dict[str, bool] = {}
    for fixture in suite.fixtures:
        for name, short in seen.found.get((suite.file, fixture), {}).items():
            merged[name] = merged.get(name, False) or short
    return {name: TRIED if short else LONG for name, short in merged.items()}


def page(seen: Seen) -> str:
    """The whole page."""
    rows = {port: (suite, adapters(seen, suite)) for port, suite in SUITES.items()}
    stores = {port: row for port, row in rows.items() if row[0].fixtures == STORES}
    columns = list(dict.fromkeys(name for _, found in stores.values() for name in found))
    others = [
        (f"`{port}`", _link(suite), ", ".join(_named(name, said) for name, said in found.items()))
        for port, (suite, found) in rows.items()
        if port not in stores
    ]
    return "\n\n".join([
        "# Which adapter keeps which port's promises",
        "<!-- Written by docs/contracts.py; change the tests, not this page. -->",
        "A station says in its `ports.py` what it needs from the world. Each port has one contract suite, which runs "
        "on the public fake (`modelyard.testing`) and on every adapter alike. `yes`: it runs in `make test`; `long`: "
        f"in `make test-long` alone; {MISSING}: not there.",
        "## Stores, by database",
        table(("port", "suite", *(NAMES.get(name, name) for name in columns)),
              [(f"`{port}`", _link(suite), *(found.get(name, MISSING) for name in columns))
               for port, (suite, found) in stores.items()]),
        "DynamoDB has neither rollups nor an archive: both are refused there in a sentence.",
        "## Everything else",
        table(("port", "suite", "runs on"), others),
        f"Formats that run code are tried in their jail: {_link(Suite('test_jailed_runtime'))}.",
        "## Ports without a suite",
        table(("port", "why"), [(f"`{port}`", why) for port, why in ALONE.items()]),
    ]) + "\n"  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *rows))


def _named(name: str, said: str) -> str:
    return NAMES.get(name, name) + (f" ({LONG})" if said == LONG else "")


def _link(suite: Suite) -> str:
    return f"[{suite.file}](../tests/contract/{suite.file}.py)"


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or says whether it is old."""
    text = page(collected())
    if "--check" in arguments:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
