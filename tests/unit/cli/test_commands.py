"""The command line contract: what commands print, and how they refuse."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import Run, parsed
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier
from typer.testing import CliRunner

from modelyard.cli.exits import Exit, exit_code, refusal_lines
from modelyard.cli.main import COMMANDS, app
from modelyard.cli.terminal.files import read_csv, read_npy
from modelyard.core.errors import CODES, CommandError, ModelyardError
from modelyard.core.settings import load_settings
from modelyard.journal.ports import SpoolPosition
from modelyard.storage.sql.open import open_stores
from modelyard.testing import prediction_record


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trees trained on scikit-learn's iris table, as ONNX."""
    from skl2onnx import to_onnx

    folder = tmp_path_factory.mktemp("models")
    rows, classes = load_iris(return_X_y=True)
    for depth in (1, 3):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(rows.astype(np.float32), classes)
        model = to_onnx(tree, rows[:1].astype(np.float32), options={"zipmap": False})
        (folder / f"tree{depth}.onnx").write_bytes(model.SerializeToString())
    return folder / "tree1.onnx", folder / "tree3.onnx"


def refused(result: Any, code: str) -> ModelyardError:
    """The refusal of a command."""
    assert isinstance(result.exception, ModelyardError), result.output
    assert result.exception.code == code
    return result.exception


def test_keys_are_created_listed_and_revoked(run: Run) -> None:
    """The contract's JSON: id, key and client once; the list never shows a key; revoking is idempotent."""
    made = parsed(run("keys", "create", "acme", "--models", "tree*", "--rate", "100/s", "--expires", "30d", "--json"))
    assert (made["client"], made["models"], made["scopes"], made["rate"]) == ("acme", ["tree*"], ["predict"], "100/s")
    assert made["key"].startswith(f"mdy_{made['id']}_")
    listed = run("keys", "list", "--json")
    assert made["key"] not in listed.stdout
    assert [key["state"] for key in parsed(listed)["keys"]] == ["active"]
    assert parsed(run("keys", "revoke", made["id"], "--json"))["state"] == "revoked"
    assert parsed(run("keys", "revoke", made["id"], "--json"))["state"] == "revoked"
    refused(run("keys", "revoke", "nothing"), "key_not_found")
    refused(run("keys", "create", "a b"), "name_invalid")
    refused(run("keys", "create", "acme", "--scope", "root"), "parameter_invalid")
    table = run("keys", "list").stdout
    assert "acme" in table
    assert "revoked" in table


def test_publishing_makes_versions_and_traffic_follows_orders(
    run: Run, onnx_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """First version takes all traffic, the second none until told; the same bytes are a no-op, others a conflict."""
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"accuracy": 0.95}')
    one, two = map(str, onnx_files)
    made = parsed(run("publish", "tree", one, "--metrics", str(metrics), "--json"))
    assert (made["version"], made["created"], made["metrics"]) == ("1", True, {"accuracy": 0.95})
    assert parsed(run("publish", "tree", one, "--json"))["created"] is False
    assert "nothing was changed" in run("publish", "tree", one).stdout
    assert parsed(run("publish", "tree", two, "--json"))["version"] == "2"
    refused(run("publish", "tree", two, "--version", "1"), "version_exists")
    assert parsed(run("traffic", "show", "tree", "--json"))["weights"] == {"1": 100}
    assert parsed(run("traffic", "set", "tree", "1=90", "2=10", "--json"))["weights"] == {"1": 90, "2": 10}
    refused(run("traffic", "set", "tree", "1=90", "2=11"), "traffic_invalid")
    refused(run("traffic", "set", "tree", "1=50", "1=50"), "traffic_invalid")
    refused(run("traffic", "set", "tree", "3=100"), "version_not_found")
    (model,) = parsed(run("models", "list", "--json"))["models"]
    assert (model["name"], model["versions"], model["traffic"]) == ("tree", ["1", "2"], {"1": 90, "2": 10})
    assert len(parsed(run("models", "show", "tree", "--json"))["versions"]) == 2
    assert parsed(run("models", "show", "tree", "--version", "2", "--json"))["signature"]["inputs"]
    assert "90 %" in run("models", "show", "tree").stdout
    refused(run("models", "show", "oak"), "model_not_found")


def test_bad_models_and_files_are_refused(run: Run, tmp_path: Path) -> None:
    """A missing file, a hostile name, a file that is no model, metrics that are no object: each with a code."""
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"not a model")
    refused(run("publish", "tree", str(tmp_path / "none")), "file_unreadable")
    refused(run("publish", "../x", str(junk)), "name_invalid")
    refused(run("publish", "tree", str(junk)), "model_unreadable")
    refused(run("publish", "tree", str(junk), "--metrics", str(junk)), "file_unreadable")
    assert parsed(run("models", "list", "--json")) == {"models": []}


@pytest.fixture
def with_records(tmp_path: Path) -> None:
    """Five records, one a refusal, in the data folder."""
    stores = open_stores(load_settings(data=tmp_path / "data"), tmp_path / "data")
    records = [prediction_record(f"p{n}", 1_700_000_000.0 + n, status=200 if n else 400) for n in range(5)]
    stores.sink.store(records, SpoolPosition("f", 1))
    stores.close()


@pytest.mark.usefixtures("with_records")
def test_the_log_is_counted_listed_and_shown(run: Run) -> None:
    """The contract's JSON, with filters, a limit and a cursor that goes on where the page ended."""
    assert parsed(run("predictions", "count", "--json")) == {"count": 5}
    assert parsed(run("predictions", "count", "--status", "4xx", "--json")) == {"count": 1}
    assert parsed(run("predictions", "count", "--client", "nobody", "--json")) == {"count": 0}
    assert parsed(run("predictions", "count", "--since", "1h", "--json")) == {"count": 0}
    page = parsed(run("predictions", "list", "--limit", "2", "--json"))
    assert [record["id"] for record in page["predictions"]] == ["p4", "p3"]
    rest = parsed(run("predictions", "list", "--cursor", page["next_cursor"], "--json"))
    assert ([record["id"] for record in rest["predictions"]], rest["next_cursor"]) == (["p2", "p1", "p0"], None)
    assert parsed(run("predictions", "show", "p1", "--json"))["id"] == "p1"
    refused(run("predictions", "show", "p9"), "prediction_not_found")
    refused(run("predictions", "count", "--since", "never"), "parameter_invalid")
    assert "p4" in run("predictions", "list").stdout


@pytest.mark.usefixtures("with_records")
def test_the_log_is_exported_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    """JSON Lines with an id each, CSV with a head; to standard output without --out; no half file is left."""
    out = tmp_path / "out.jsonl"
    parsed(run("predictions", "export", "--out", str(out), "--json"))
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [f"p{n}" for n in range(5)]
    rows = list(csv.DictReader(io.StringIO(run("predictions", "export", "--format", "csv", "--status", "2xx").stdout)))
    assert [row["id"] for row in rows] == ["p1", "p2", "p3", "p4"]
    refused(run("predictions", "export", "--format", "xml"), "usage_invalid")
    refused(run("predictions", "export", "--out", str(tmp_path / "no" / "x")), "file_unreadable")
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_where_a_command_works_is_said_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--data and --server exclude each other; --data wins over MODELYARD_SERVER; addresses are checked."""
    refused(run("keys", "list", "--server", "http://127.0.0.1:1"), "usage_invalid")
    monkeypatch.setenv("MODELYARD_SERVER", "http://127.0.0.1:1")
    assert parsed(run("keys", "list", "--json")) == {"keys": []}
    refused(CliRunner().invoke(app, ["keys", "list"]), "server_unreachable")
    refused(CliRunner().invoke(app, ["keys", "list", "--server", "nowhere"]), "usage_invalid")


def test_predict_needs_a_server_and_a_key(run: Run) -> None:
    """Without either, a refusal that says how to get one."""
    refused(run("predict", "tree", "-", "--key", "k"), "server_not_running")
    refused(CliRunner().invoke(app, ["predict", "tree", "-", "--server", "http://127.0.0.1:1"]), "key_missing")


def test_every_group_has_help_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command says what it does and shows one call."""
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    listing = runner.invoke(app, ["--help"])
    assert all(name in listing.stdout for name in COMMANDS)
    groups = {"keys": ("create", "list", "revoke"), "predictions": ("list", "count", "show", "export"),
              "models": ("list", "show"), "traffic": ("show", "set"), "publish": ("",), "predict": ("",)}  # fmt: skip
    for group, commands in groups.items():
        for command in commands:
            text = runner.invoke(app, [group, *([command] if command else []), "--help"]).stdout
            assert "Example: " in text, (group, command)


def test_every_refusal_has_an_exit_code_and_one_line() -> None:
    """Each code ends in a documented exit code other than 0, on one line, whatever its texts hold."""
    for code, family in CODES.items():
        error = family(code, "Bad\nthing \x1b[31m.", got="a\r\nb", expected=["x"])
        assert Exit.REFUSED <= exit_code(error) <= Exit.UNAVAILABLE
        assert all(line.isprintable() for line in refusal_lines(error))
    assert exit_code(CODES["key_revoked"]("key_revoked", "x")) == Exit.AUTHENTICATION
    assert exit_code(CODES["model_not_found"]("model_not_found", "x")) == Exit.NOT_FOUND


def test_csv_and_npy_are_read_or_refused() -> None:
    """Numbers are numbers, texts stay texts; a short line names itself; pickled objects are never loaded."""
    assert read_csv(b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2.5,true\r\n", "f") == [{"a": 1, "b": "x"}, {"a": 2.5, "b": True}]
    for body, why in ((b"a,a\n1,2", "once"), (b"a,b\n1", "line 2"), (b"\xff", "UTF-8"), (b"", "column")):
        with pytest.raises(CommandError, match=why):
            read_csv(body, "f")
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CommandError):
        read_npy(buffer.getvalue(), "f")


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    command = [sys.executable, "-m", "modelyard.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**kept, **environment})


def test_a_process_ends_with_the_documented_code_and_no_traceback(tmp_path: Path) -> None:
    """One red line and a remedy on standard error, nothing on standard output; a traceback only when asked for."""
    data = ("--data", str(tmp_path / "data"))
    cases = (
        (("models", "show", "x", *data), 3),
        (("keys", "list", "--nope"), 2),
        (("keys", "create", "a b", *data), 2),
        (("keys", "list", "--server", "http://127.0.0.1:1"), 6),
        (("keys", "list", "--data", "/dev/null/x"), 1),
    )
    for arguments, code in cases:
        done = process(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
    assert "Traceback" in process("models", "show", "x", *data, MODELYARD_DEBUG="1").stderr
    assert json.loads(process("keys", "create", "acme", "--json", *data).stdout)["client"] == "acme"


def test_help_and_version_bring_no_heavy_library() -> None:
    """`--help` stays quick: neither the database, nor the framework, nor a numeric library is imported."""
    script = (
        "import sys; from typer.testing import CliRunner; from modelyard.cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "heavy = {'numpy', 'sqlalchemy', 'fastapi', 'onnxruntime', 'pydantic', 'urllib3'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
