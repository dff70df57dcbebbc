"""The commands of the README and the guides run, as they stand there."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from modelyard.cli.main import app
from modelyard.core.settings import load_settings
from objectstore.emulator import Emulator
from postgres.server import Server

ROOT = Path(__file__).parent.parent.parent
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
GUIDES = ("docs/concepts/limits.md", "docs/concepts/publishing.md", "docs/concepts/records.md",
          "docs/concepts/audit.md", "docs/guides/prediction-log.md", "docs/guides/analytics.md")  # fmt: skip
ALONE = ("docs/start.md", "docs/guides/publish.md", "docs/guides/sign.md", "docs/guides/switch-traffic.md",
         "docs/guides/operate.md", "docs/guides/tls.md", "docs/guides/keys.md", "docs/guides/retention.md",
         "examples/README.md")  # fmt: skip
"""Pages whose commands run by themselves, in a folder of their own, with the models that examples/train.py makes."""
IN_A_BUCKET = "docs/guides/artifacts-on-s3.md"
"""Its commands run with an emulator in the place of AWS."""
TO_A_SERVER = "docs/guides/from-a-laptop-to-a-server.md"
"""Its commands run with a PostgreSQL server of the tests' own."""
NEEDS_A_SERVER = ("docs/guides/publish.md", "docs/guides/switch-traffic.md", "docs/guides/keys.md")
STANDS_FOR = {"3fXkQ9aLm2Zp": "$(newest)", "mdy_…": "$(issued)", "3f9c0a12be77": "$(held)"}
"""What the reader puts in place of a key's id, of its text, and of a hold's id."""
SERVE = """
modelyard serve --port 8080 &
until curl -sf -o /dev/null http://127.0.0.1:8080/v2/health/live; do sleep 0.2; done
"""
BEFORE = r"""
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
newest() { modelyard keys list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["keys"][0]["id"])'; }
held() { modelyard retention holds --json | grep -o '[0-9a-f]\{12\}' | head -n 1; }
issued() { modelyard keys create me --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])'; }
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


def fenced(page: str, kind: str) -> list[str]:
    """The blocks of a kind on a page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def as_read(script: str) -> str:
    """The script with what a reader puts in place of the examples' ids and texts."""
    for written, meant in STANDS_FOR.items():
        script = script.replace(written, meant)
    return script


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
        timeout=480,
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
    script = as_read("\n".join((BEFORE, *tour, FILES_OF_GUIDES, *guides, end))).replace("8080", port)
    done = run(re.sub(r"\bshow ID\b", f"show {the_id}", script), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in ('"label_name":"setosa"', '"outputs"', "nothing was changed", "90 %", "is revoked", "Exported to"):
        assert words in done.stdout, words
    records = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {record["client"] for record in records} == {"me"}
    assert len(records) == 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`iris` and `iris-tuned`, trained once for all pages."""
    folder = tmp_path_factory.mktemp("models")
    done = run(f"python {ROOT}/examples/train.py . && mv iris-1 iris && mv iris-2 iris-tuned", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (apt-get install curl)")
@pytest.mark.parametrize("page", ALONE)
def test_a_page_runs_alone(page: str, models: Path, tmp_path: Path) -> None:
    """Every command of the page, from top to bottom, ends with 0, whatever else was done on this machine."""
    for source in models.iterdir():
        shutil.copytree(source, tmp_path / source.name)
    for source in (ROOT / "examples").glob("*.*"):
        shutil.copy(source, tmp_path)
    commands = blocks(page)
    assert commands
    script = as_read("\n".join((BEFORE, SERVE if page in NEEDS_A_SERVER else "", *commands)))
    with ExitStack() as opened:
        for port in set(re.findall(r"\b8\d{3}\b", script)):
            free = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            script = script.replace(port, str(free.getsockname()[1]))
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (apt-get install curl)")
def test_the_page_of_the_bucket_runs(
    models: Path, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command but the installation ends with 0, against an emulator; what is published is in the bucket."""
    shutil.copytree(models / "iris", tmp_path / "iris")
    emulator.client.create_bucket(Bucket="my-models")
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.url)
    commands = [block.replace("pip install 'modelyard[aws]'", "") for block in blocks(IN_A_BUCKET)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    done = run("\n".join((BEFORE, *commands)).replace("8080", port), tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "s3://my-models/yard answers" in done.stdout
    assert {key.split("/")[0] for key in emulator.keys("my-models")} == {"yard"}
    (example,) = fenced(IN_A_BUCKET, "toml")
    (tmp_path / "modelyard.toml").write_text(example)
    monkeypatch.setenv("MODELYARD_CONFIG", "")  # restored afterwards: loading sets it
    assert load_settings(tmp_path / "modelyard.toml").artifacts.url == "s3://my-models/yard"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (apt-get install curl)")
def test_the_page_of_the_copy_runs(models: Path, tmp_path: Path, postgres: Server) -> None:
    """Every command ends with 0, from a server on SQLite to one on PostgreSQL, and the tables are equal."""
    shutil.copytree(models / "iris", tmp_path / "iris")
    url = postgres.empty()
    first, *rest = blocks(TO_A_SERVER)
    (tmp_path / "modelyard.toml").write_text(fenced(TO_A_SERVER, "toml")[0])
    script = "\n".join((BEFORE, SERVE, "modelyard publish iris iris", first, *rest))
    with socket.create_server(("127.0.0.1", 0)) as free:
        script = script.replace("8080", str(free.getsockname()[1]))
    script = f"sed -i 's|{LAPTOP_URL}|{url}|' modelyard.toml\n" + script.replace(LAPTOP_URL, url)
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("equal on both sides") == 2
    assert postgres.query("SELECT count(*) FROM versions", url.rpartition("/")[2]) == "1"


LAPTOP_URL = "postgresql://modelyard@db.example.com/modelyard"


def test_the_index_names_every_page() -> None:
    """No guide and no concept is left out of the index."""
    index = (ROOT / "docs/index.md").read_text()
    pages = [path for folder in ("guides", "concepts") for path in (ROOT / "docs" / folder).glob("*.md")]
    assert [path.name for path in pages if f"]({path.parent.name}/{path.name})" not in index] == []


def test_every_page_with_commands_is_run() -> None:
    """A page of start, guides, concepts and examples that shows commands is one of those above."""
    pages = [ROOT / "README.md", ROOT / "examples/README.md", ROOT / "docs/start.md", *(ROOT / "docs/guides").glob("*")]
    shown = {str(path.relative_to(ROOT)) for path in (*pages, *(ROOT / "docs/concepts").glob("*"))}
    with_commands = {page for page in shown if blocks(page)}
    assert with_commands - {*GUIDES, *ALONE, IN_A_BUCKET, TO_A_SERVER, "README.md"} == set()


@pytest.mark.parametrize("page", ["docs/guides/operate.md", "docs/guides/behind-a-proxy.md"])
def test_the_configuration_of_the_guide_is_accepted(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's TOML examples load together, and say what they seem to say."""
    example = "\n".join(fenced(page, "toml"))
    config = tmp_path / "modelyard.toml"
    config.write_text(example)
    monkeypatch.setenv("MODELYARD_CONFIG", "")  # restored afterwards: loading sets it
    settings = load_settings(config)
    if page.endswith("operate.md"):
        assert (settings.workers, settings.limits.default_rate, settings.journal.durability) == (4, "200/s", "host")
        assert str(settings.database.url).startswith("postgresql://modelyard@")
    else:
        assert (settings.http.root_path, settings.http.trusted_proxies) == ("/models", ("127.0.0.1/32",))


def test_the_unit_of_the_guide_is_one() -> None:
    """The systemd unit has its sections, and calls commands and options that exist."""
    (text,) = fenced("docs/guides/operate.md", "ini")
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    root: Any = get_command(app)
    for name in ("ExecStartPre", "ExecStart"):
        program, command, *options = unit["Service"][name].split()
        assert Path(program).name == "modelyard"
        known = {opt for each in root.get_command(None, command).params for opt in each.opts}
        assert {option for option in options if option.startswith("--")} <= known
    assert float(unit["Service"]["TimeoutStopSec"]) > 30


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
def test_the_proxy_of_the_guide_serves(tmp_path: Path) -> None:
    """The nginx location, in a real nginx before a real server with the guide's settings: predictions arrive below
    the prefix, and the audit log names the caller's own address, not the proxy's."""
    with ExitStack() as opened:
        ports = [opened.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
    (settings,), (location,) = (fenced("docs/guides/behind-a-proxy.md", kind) for kind in ("toml", "nginx"))
    (tmp_path / "modelyard.toml").write_text(settings + f"port = {ports[0]}\n")
    server = f"server {{ listen 127.0.0.1:{ports[1]}; {location.replace('8080', str(ports[0]))} }}"
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in TEMPORARY)
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log stderr; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {places} {server} }}"
    )
    done = run(BEFORE + PROXIED.format(root=ROOT, nginx=NGINX, folder=tmp_path, port=ports[1]), tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert '"prediction_id"' in done.stdout
    assert "198.51.100.7" in done.stdout.rpartition("AUDIT")[2], done.stdout


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
PROXIED = """
python {root}/examples/train.py .
modelyard serve --config modelyard.toml &
{nginx} -c {folder}/nginx.conf -p {folder} -e stderr &
export U=http://127.0.0.1:{port}/models
until curl -sf -o /dev/null $U/v2/health/live; do sleep 0.2; done
modelyard publish iris iris-1
ADMIN=$(modelyard keys create ops --scope admin --json | sed 's/.*"key":"\\([^"]*\\)".*/\\1/')
KEY=$(curl -s $U/v1/keys -H "x-api-key: $ADMIN" -H 'content-type: application/json' \\
  -H 'x-forwarded-for: 6.6.6.6, 198.51.100.7' -d '{{"client": "behind"}}' |
  sed 's/.*"key":"\\([^"]*\\)".*/\\1/')
until curl -sf -o /dev/null $U/v2/health/ready; do sleep 0.2; done
curl -s --fail-with-body $U/v1/models/iris/predictions -H "x-api-key: $KEY" -d '{{"items": [
  {{"sepal_length": 6.7, "sepal_width": 3.0, "petal_length": 5.2, "petal_width": 2.3}}]}}'
echo AUDIT; modelyard audit list --json
kill %1 %2 && wait
"""


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
