"""KServe's own Python client, untouched, in its V1 and V2 protocols (`make test-kserve`): its own traps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
from server import RunningServer, clean_environment

PYTHON = Path(__file__).parents[2] / ".venv-kserve" / "bin" / "python"
ASKED = Path(__file__).parent / "kserve_client" / "asked.py"
ROWS = trained.cancer().rows[:7]

pytestmark = [
    pytest.mark.kserve,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-kserve (make test-kserve)"),
]


@pytest.fixture(scope="module")
def said(server: RunningServer, client_key: str) -> Any:
    """What the client read of each answer."""
    server.set_traffic("cancer", v1=100)
    given = json.dumps({"key": client_key, "rows": ROWS.tolist()})
    ended = subprocess.run(
        [PYTHON, ASKED, server.url], input=given, env=clean_environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_health(said: Any, protocol: str) -> None:
    """Trap 4: live, ready and model ready are read out of the body, and are True, not None."""
    assert said[protocol]["live"] is True
    assert said[protocol]["model ready"] is True
    if protocol == "v2":
        assert said["v2"]["ready"] is True
        assert said["v2"]["no model ready"] is False
    else:
        assert said["v1"]["no model"]["status"] == 404


@pytest.mark.parametrize("form", ["json", "binary in", "binary out", "binary", "one output"])
def test_v2_infer(said: Any, form: str) -> None:
    """Trap 5: `model_name` and `id` in the body are taken; every mix of JSON and binary gives the model's numbers."""
    answer, expected = said["v2"][form], trained.cancer(1.0).probabilities[:7]
    assert (answer["model"], answer["id"]) == ("cancer", "a-b")
    assert np.allclose(answer["outputs"]["probabilities"], expected, atol=1e-6)
    if form == "one output":
        assert answer["outputs"].keys() == {"probabilities"}
    else:
        assert answer["outputs"]["label"] == expected.argmax(1).tolist()


def test_v1_predict(said: Any) -> None:
    """Rows and columns, as TensorFlow Serving writes them."""
    expected = trained.cancer(1.0).probabilities[:7]
    rows = [row["probabilities"] for row in said["v1"]["instances"]["predictions"]]
    assert np.allclose(rows, expected, atol=1e-6)
    assert np.allclose(said["v1"]["columns"]["outputs"]["probabilities"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("protocol", "case", "status", "word"),
    [
        ("v2", "wrong shape", 400, "inputs[0].shape"),
        ("v2", "no key", 401, "x-api-key"),
        ("v2", "no model", 404, "`none`"),
        ("v1", "wrong shape", 400, "instances"),
        ("v1", "no model", 404, "`none`"),
    ],
)
def test_our_sentence_reaches_the_caller(said: Any, protocol: str, case: str, status: int, word: str) -> None:
    """Trap 4: the client shows the message only where the content type is exactly `application/json`."""
    refused = said[protocol][case]
    assert refused["status"] == status
    assert word in refused["text"]
