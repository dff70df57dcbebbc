"""Good models whose files are programs: signed, published, loaded in their jail, and asked over HTTP about rows of real
tables that they never saw. Every answer is the one of the library in the test's own process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server import RunningServer, command, until

import modelsigners
from modelyard.models.archive import pack_folder
from modelyard.models.signing import keys
from modelyard.models.signing.statement import SIGNATURE_FILE, sign
from modelyard.models.stage import hash_folder

KEY = keys.key_from_seed(bytes(32))
BUNDLER, ROOT = modelsigners.key("P-384"), modelsigners.authority()
TRUSTED = [keys.public_line(keys.public_bytes(KEY)), modelsigners.public_pem(BUNDLER), ROOT.pem]
SETTINGS = {"models.unsafe_formats": '["pickle", "python"]', "models.trusted_signers": json.dumps(TRUSTED)}
CLASS = """
import numpy as np

class Linear:
    def load(self, folder):
        held = np.load(folder / "weights.npz")
        self.mean, self.scale, self.weights, self.shift = (held[name] for name in ("mean", "scale", "weights", "shift"))

    def predict(self, inputs):
        score = ((inputs["X"] - self.mean) / self.scale) @ self.weights + self.shift
        risk = 1 / (1 + np.exp(-score))
        return {"label": (risk > 0.5).astype(np.int64), "probabilities": np.stack([1 - risk, risk], axis=1)}
"""
MLMODEL = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
    sklearn_version: 1.9.1
    skops_trusted_types: null
mlflow_version: 3.17.2
signature:
  inputs: '[{inputs}]'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "float64", "shape": [-1]}}}}]'
  params: null
"""
MEASURED = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
Answers = Mapping[str, Any]
Made = tuple[Any, Answers]
"""The rows, and what the model says of them in this process."""


def _split(table: str) -> tuple[Any, Any, Any]:
    """Rows and labels to learn from, and rows that are held back."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    rows, labels = getattr(datasets, f"load_{table}")(return_X_y=True)
    seen, held, known, _ = train_test_split(rows, labels, test_size=0.3, random_state=0)
    return seen, known, held


def _classified(model: Any, held: Any) -> Made:
    return held, {"label": model.predict(held), "probabilities": model.predict_proba(held)}


def _joblib(folder: Path) -> Made:
    """Handwritten digits, a forest behind a scaler, compressed by joblib."""
    import joblib
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, known, held = _split("digits")
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(seen, known)
    joblib.dump(model, folder / "digits.joblib", compress=3)
    return _classified(model, held)


def _mlflow(folder: Path) -> Made:
    """Diabetes, boosted trees, in the folder that MLflow 3 writes with `serialization_format="cloudpickle"`: a number
    for each patient."""
    import cloudpickle
    from sklearn.ensemble import GradientBoostingRegressor

    seen, known, held = _split("diabetes")
    model = GradientBoostingRegressor(random_state=0).fit(seen, known)
    columns = [json.dumps({"type": "double", "name": name, "required": True}) for name in MEASURED]
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    (folder / "MLmodel").write_text(MLMODEL.format(inputs=", ".join(columns)))
    for other in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        (folder / other).write_text("scikit-learn\n")
    return held, {"value": model.predict(held)}


def _python(folder: Path) -> Made:
    """Breast cancer, a regression as a class of its owner's that reads its own weights."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, known, held = _split("breast_cancer")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(seen, known)
    scaler, linear = model[0], model[1]
    np.savez(
        folder / "weights.npz",
        mean=scaler.mean_, scale=scaler.scale_, weights=linear.coef_[0], shift=linear.intercept_[0],
    )  # fmt: skip
    (folder / "linear.py").write_text(CLASS)
    (folder / "python.json").write_text(json.dumps({"python_class": "linear:Linear"}))
    outputs = [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2], "labels": ["0", "1"]},
    ]
    inputs = [{"name": "X", "datatype": "FP64", "shape": [-1, held.shape[1]]}]
    (folder / "modelyard.json").write_text(json.dumps({"signature": {"inputs": inputs, "outputs": outputs}}))
    return _classified(model, held)


MAKERS: dict[str, tuple[str, Callable[[Path], Made]]] = {
    "joblib": ("pickle", _joblib),
    "mlflow": ("pickle", _mlflow),
    "python": ("python", _python),
}
"""By name of the model: its format, and who makes its folder."""


@pytest.fixture(scope="module")
def jailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that allows pickles and classes of one signer."""
    started = RunningServer(tmp_path_factory.mktemp("jailing") / "data", settings=SETTINGS).start()
    try:
        yield started
    except BaseException:
        started.end()
        raise
    started.stop()


def _publish(server: RunningServer, model: str, folder: Path) -> Any:
    """Publishes the folder as a tar archive."""
    archive = b"".join(pack_folder(folder))
    headers = {"content-type": "application/x-tar"}
    return server.ask("PUT", f"/v1/models/{model}/versions/1", archive, headers=headers)


def _infer(server: RunningServer, model: str, rows: Any) -> dict[str, Any]:
    """Every output of these rows, as arrays by name."""
    metadata = server.ask("GET", f"/v2/models/{model}").json
    (given,) = metadata["inputs"]
    tensor = {"name": given["name"], "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    reply = server.ask("POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert reply.status == 200, reply.body
    return {each["name"]: np.reshape(each["data"], each["shape"]) for each in reply.json["outputs"]}


@pytest.mark.parametrize("name", MAKERS)
def test_a_good_program_answers_as_at_home(jailing: RunningServer, tmp_path: Path, name: str) -> None:
    """Without its signature the folder is refused with signature_missing; signed it is published as trusted, loads in
    its jail, and gives for all held-out rows at once, and for single ones, what its library gives. Each is in the
    log."""
    form, make = MAKERS[name]
    held, answers = make(tmp_path)
    refused = _publish(jailing, name, tmp_path)
    assert (refused.status, refused.json["code"]) == (422, "signature_missing"), refused.body
    (tmp_path / SIGNATURE_FILE).write_bytes(sign(hash_folder(tmp_path, 10**8), KEY))
    made = _publish(jailing, name, tmp_path)
    assert made.status == 201, made.body
    assert (made.json["format"], made.json["signing"]["trusted"]) == (form, True)
    ready = f"/v2/models/{name}/versions/1/ready"
    until(lambda: jailing.ask("GET", ready).status == 200, 30, f"{name} being loaded")
    together = _infer(jailing, name, held)
    assert together.keys() == answers.keys()
    alone = [_infer(jailing, name, held[i : i + 1]) for i in range(3)]
    for output, expected in answers.items():
        np.testing.assert_allclose(together[output], expected, rtol=1e-9, atol=1e-12)
        found = np.concatenate([each[output] for each in alone])
        np.testing.assert_allclose(found, expected[:3], rtol=1e-9, atol=1e-12)
    until(lambda: jailing.count(model=name) == 4, what="the log")


def _by_command(server: RunningServer, model: str, folder: Path) -> Any:
    """Publishes the folder on the command line; the version's view."""
    remote = ("--version", "1", "--server", server.url, "--key", server.key, "--json")
    done = command("publish", model, folder, *remote)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("method", "name"), [("openssf-key", "python"), ("openssf-certificate", "joblib")])
def test_a_program_that_openssf_s_own_tool_signed(
    jailing: RunningServer, tmp_path: Path, method: str, name: str
) -> None:
    """A bundle of somebody else is refused with signer_unknown, one that lacks a file with signature_invalid. One of a
    trusted key (over HTTP) or certificate (on the command line, which sends it over HTTP) is a signature: published,
    loaded in its jail, asked; view and audit log name the signer, the method and the authority."""
    form, make = MAKERS[name]
    held, answers = make(tmp_path)
    modelsigners.sign(tmp_path, modelsigners.key())
    refused = _publish(jailing, method, tmp_path)
    assert (refused.status, refused.json["code"]) == (422, "signer_unknown"), refused.body
    by_key = method == "openssf-key"
    modelsigners.sign(tmp_path, BUNDLER if by_key else modelsigners.Certified(ROOT))
    (tmp_path / "added.py").write_text("")
    refused = _publish(jailing, method, tmp_path)
    assert (refused.status, refused.json["code"]) == (422, "signature_invalid"), refused.body
    assert "`added.py` is not covered" in refused.json["error"]
    (tmp_path / "added.py").unlink()
    made = _publish(jailing, method, tmp_path).json if by_key else _by_command(jailing, method, tmp_path)
    assert (made["format"], made["signing"]["trusted"], made["signing"]["method"]) == (form, True, method)
    ready = f"/v2/models/{method}/versions/1/ready"
    until(lambda: jailing.ask("GET", ready).status == 200, 30, f"{method} being loaded")
    found = _infer(jailing, method, held)
    for output, expected in answers.items():
        np.testing.assert_allclose(found[output], expected, rtol=1e-9, atol=1e-12)
    events = jailing.ask("GET", f"/v1/audit?action=version:publish&subject=version:{method}/1").json["events"]
    after = events[0]["after"]
    assert (after["signer"], after["signing_method"]) == (made["signing"]["signer"], method)
    assert after.get("signing_authority") == made["signing"]["authority"]
    assert (made["signing"]["authority"] is None) == by_key
