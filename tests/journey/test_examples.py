"""The examples run, each against a real server: the same prediction from every language, a switch, the story."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from server import RunningServer, clean_environment

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CLIENTS = {
    "curl": ["sh", "predict.sh"],
    "Python": [sys.executable, "predict.py"],
    "tritonclient": [sys.executable, "predict_triton.py"],
    "JavaScript": ["node", "predict.mjs"],
} | ({"Java": ["java", "Predict.java"]} if shutil.which("javac") else {})
"""Java where the machine has it; the others are needed."""


def run(line: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A program from the folder of the examples, to its end."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = {**clean_environment({"PATH": path}), **env}
    return subprocess.run(line, cwd=EXAMPLES, env=known, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train.py` writes."""
    folder = tmp_path_factory.mktemp("examples")
    done = run([sys.executable, "train.py", str(folder)], {})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[RunningServer]:
    """A server with `iris` 1."""
    started = RunningServer(trained / "data", settings={"http.drain_delay_s": "0.1"}).start()
    try:
        done = run(["modelyard", "publish", "iris", str(trained / "iris-1"), "--version", "1"], on(started))
        assert done.returncode == 0, done.stderr
        yield started
    except BaseException:
        started.end()
        raise
    started.stop()


def on(server: RunningServer) -> dict[str, str]:
    """The environment of a command on the server's folder."""
    return {"MODELYARD_DATA": str(server.data)}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> dict[str, str]:
    """The environment of a client's program."""
    return {"MODELYARD_URL": server.url, "MODELYARD_KEY": server.create_key("examples", rate="1000000/s")["key"]}


def offline(folder: Path) -> str:
    """What the model says of the examples' row, as the clients print it."""
    session = onnxruntime.InferenceSession((folder / "iris-1" / "model.onnx").read_bytes())
    (label,), (chances,) = session.run(None, {"X": np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)})
    name = json.loads((folder / "iris-1" / "modelyard.json").read_text())["labels"][label]
    return f"{name} {chances[label]:.4f}\n"


@pytest.mark.parametrize("language", CLIENTS)
def test_same_prediction(server: RunningServer, client: dict[str, str], trained: Path, language: str) -> None:
    """Each language prints what the model says offline; with a wrong key it ends with an error that says so."""
    line = CLIENTS[language]
    if shutil.which(line[0]) is None:
        pytest.skip(f"{line[0]} is not installed (apt-get install nodejs)")
    done = run(line, client)
    assert (done.returncode, done.stdout) == (0, offline(trained)), done.stderr
    refused = run(line, {**client, "MODELYARD_KEY": "mdy_wrong"})
    assert refused.returncode != 0
    assert "key" in refused.stderr
    assert refused.stdout == ""


def test_publish_and_switch(server: RunningServer, client: dict[str, str], trained: Path) -> None:
    """A version that nobody asked in its trial is taken back; one that answered well gets all traffic."""
    script = ["sh", "publish_and_switch.sh", "iris", str(trained / "iris-2"), "2", "1"]
    env = {**on(server), "MODELYARD_TRIAL_S": "0"}
    silent = run(script, env)
    assert silent.returncode == 1
    assert "back to 1" in silent.stderr
    assert shares(server) == {"1": 100}
    asking = subprocess.Popen(
        [sys.executable, "-c", ASK_ON], env={**clean_environment(), **client}, stdout=subprocess.DEVNULL
    )
    try:
        done = run(script, {**env, "MODELYARD_TRIAL_S": "3"})
    finally:
        asking.terminate()
        asking.wait()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none failed" in done.stdout
    assert shares(server) == {"2": 100}


ASK_ON = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import predict
while True:
    predict.main()
"""


def shares(server: RunningServer) -> dict[str, int]:
    weights: dict[str, int] = server.ask("GET", "/v1/endpoints/iris/traffic").json["weights"]
    return {version: share for version, share in weights.items() if share}


def test_story(serve: Callable[..., RunningServer], trained: Path) -> None:
    """The story by curl alone holds from the first publish to the ended key, on a fresh server."""
    started = serve(workers=2)
    env = {"MODELYARD_URL": started.url, "ADMIN_KEY": started.key}
    done = run(["bash", "story.sh", str(trained)], env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.rstrip().endswith("The story holds.\x1b[0m")


def test_every_example_is_run() -> None:
    """Nothing lies in the folder that no test runs."""
    named = {line[-1] for line in CLIENTS.values()} | {"Predict.java", "train.py", "publish_and_switch.sh", "story.sh"}
    found = {path.name for path in EXAMPLES.iterdir() if path.is_file() and path.suffix != ".md"}
    others = {name for name in found - named if not any(name in path.read_text() for path in suites())}
    assert others == set()


def suites() -> list[Path]:
    return [*Path(__file__).parent.parent.rglob("test_*.py")]
