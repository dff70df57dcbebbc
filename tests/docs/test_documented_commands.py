"""The commands of the README and the guides run, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.core.settings import load_settings

ROOT = Path(__file__).parent.parent.parent
GUIDES = ("docs/start.md", "docs/concepts/limits.md", "docs/concepts/publishing.md", "docs/concepts/records.md")
BEFORE = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
"""
FILES_OF_GUIDES = """
cp iris/model.onnx model.onnx
echo '{"accuracy": 0.97}' > metrics.json
echo '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [6.2, 3.4, 5.4, 2.3]}]}' > example.json
for _ in $(seq 100); do modelyard predictions list --limit 1 --json > one.json; grep -q '"id"' one.json && break; done
"""
"""What a guide's reader has at that point: a model, metrics, an example, and a prediction."""


def blocks(page: str) -> list[str]:
    """The shell blocks of a page, in order."""
    return re.findall(r"^```(?:sh|console)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script in bash, with this environment's commands first and nothing of the caller's settings."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MODELYARD_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**kept, "PATH": path, "MODELYARD_HTTP__DRAIN_DELAY_S": "0.1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (apt-get install curl)")
def test_the_tour_and_the_guides_run(tmp_path: Path) -> None:
    """Every command of the README's five minutes and of the guides ends with 0, in one session from top to bottom,
    and says what the text promises."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    *tour, end = blocks("README.md")
    guides = [block for page in GUIDES for block in blocks(page)]
    assert len(tour) >= 5
    assert len(guides) >= 4
    the_id = '$(python3 -c \'import json; print(json.load(open("one.json"))["predictions"][0]["id"])\')'
    script = "\n".join((BEFORE, *tour, FILES_OF_GUIDES, *guides, end)).replace("8080", port)
    done = run(re.sub(r"\bshow ID\b", f"show {the_id}", script), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in ('"label_name":"setosa"', '"outputs"', "nothing was changed", "90 %", "is revoked", "Exported to"):
        assert words in done.stdout, words
    records = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {record["client"] for record in records} == {"me"}
    assert len(records) == 3


def test_the_configuration_of_the_guide_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TOML example loads, and says what it seems to say."""
    (example,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs/start.md").read_text(), re.MULTILINE | re.DOTALL)
    config = tmp_path / "modelyard.toml"
    config.write_text(example)
    monkeypatch.setenv("MODELYARD_CONFIG", "")  # restored afterwards: loading sets it
    settings = load_settings(config)
    assert (settings.workers, settings.limits.default_rate, settings.journal.durability) == (4, "200/s", "host")


def test_the_manifest_of_the_guide_is_accepted() -> None:
    """The `modelyard.json` example is one."""
    import msgspec

    from modelyard.models.report import Overrides

    text = (ROOT / "docs/concepts/publishing.md").read_text()
    (example,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert msgspec.json.decode(example, type=Overrides).redaction == ("age",)


def test_the_readme_shows_a_run_that_holds() -> None:
    """The terminal capture is of a run in which every claim of today's demo held."""
    readme = (ROOT / "README.md").read_text()
    shown = readme[readme.index("<!-- demo -->") : readme.index("<!-- /demo -->")]
    source = (ROOT / "src/modelyard/cli/demonstration/claims.py").read_text()
    names = re.findall(r'Claim\("([^"]+)"', source)
    assert len(names) == 6
    assert all(f"✓  {name}" in shown for name in names)
    assert "✗" not in shown
