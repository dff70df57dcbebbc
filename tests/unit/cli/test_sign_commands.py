"""`modelyard signer`, `modelyard sign` and `publish --sign`: keys and signatures as files."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cli_support import Run, parsed
from typer.testing import CliRunner, Result

import modelsigners
from modelyard.cli.main import app
from modelyard.core.errors import CommandError, ModelyardError


def alone(*arguments: str) -> Result:
    """A command that needs no data folder."""
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def signer(tmp_path: Path) -> dict[str, Any]:
    """A fresh key pair."""
    found: dict[str, Any] = parsed(alone("signer", "create", str(tmp_path / "signer.pem"), "--json"))
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small ONNX model with a `modelyard.json`, in a folder."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, target = load_iris(return_X_y=True)
    fitted = LogisticRegression(max_iter=500).fit(rows.astype("f4"), target)
    folder = tmp_path / "model"
    folder.mkdir()
    content = to_onnx(fitted, rows[:1].astype("f4"), options={"zipmap": False}).SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    (folder / "modelyard.json").write_text(json.dumps({"metrics": {"accuracy": 0.9}}))
    return folder


def test_a_key_pair_is_two_files(signer: dict[str, Any], tmp_path: Path) -> None:
    """The private half is its owner's alone and never overwritten; both halves show the same id; no private byte is
    printed."""
    private, public = tmp_path / "signer.pem", tmp_path / "signer.pem.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    for half in (private, public):
        shown = alone("signer", "show", str(half), "--json")
        assert parsed(shown)["signer"] == signer["signer"]
        assert "PRIVATE" not in shown.stdout
    before = private.read_bytes()
    again = alone("signer", "create", str(private))
    assert isinstance(again.exception, CommandError)
    assert private.read_bytes() == before
    assert "Keep the private key" in alone("signer", "create", str(tmp_path / "two.pem")).stdout


@pytest.mark.parametrize("form", ["folder", "file", "now"])
def test_signed_here_published_there(
    form: str, signer: dict[str, Any], model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with its signature, a file with one beside it, or signed by the publish itself: the version says by
    whom, for people too; the settings' file of the public key trusts it."""
    monkeypatch.setenv("MODELYARD_MODELS__REQUIRE_SIGNATURE", "true")
    monkeypatch.setenv("MODELYARD_MODELS__TRUSTED_SIGNERS", json.dumps([signer["public_key"]]))
    source = model if form == "folder" else model / "model.onnx"
    more = ["--sign", signer["private_key"]] if form == "now" else []
    if not more:
        made = parsed(alone("sign", str(source), "--key", signer["private_key"], "--json"))
        assert made["signer"] == signer["signer"]
    published = parsed(run("publish", "tree", str(source), *more, "--json"))
    checked_at = published["created_at"]
    said = {"signer": signer["signer"], "trusted": True, "method": "ed25519", "authority": None}
    assert published["signing"] == {**said, "checked_at": checked_at}
    assert published["metrics"] == ({"accuracy": 0.9} if form == "folder" else {})
    assert signer["signer"] in run("models", "show", "tree", "--version", "1").stdout
    monkeypatch.setenv("MODELYARD_MODELS__REQUIRE_SIGNATURE", "false")
    monkeypatch.setenv("MODELYARD_MODELS__TRUSTED_SIGNERS", "[]")
    assert "(not trusted here)" in run("models", "show", "tree", "--version", "1").stdout
    event = next(e for e in parsed(run("audit", "list", "--json"))["events"] if e["action"] == "version:publish")
    assert event["after"]["signer"] == signer["signer"]


def _code(result: Result) -> str:
    assert isinstance(result.exception, ModelyardError), result.output
    return result.exception.code


def test_what_cannot_be_signed_or_published_says_why(
    signer: dict[str, Any], model: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, no source, words beside what is signed, a change after the signature, a server that wants another's."""
    key = signer["private_key"]
    assert _code(alone("sign", str(model), "--key", str(tmp_path / "none.pem"))) == "file_unreadable"
    assert _code(alone("sign", str(model), "--key", signer["public_key"])) == "file_unreadable"
    assert _code(alone("sign", str(tmp_path / "none"), "--key", key)) == "file_unreadable"
    assert _code(alone("signer", "show", str(model / "modelyard.json"))) == "file_unreadable"
    words = str(model / "modelyard.json")
    assert _code(run("publish", "tree", str(model), "--sign", key, "--metrics", words)) == "usage_invalid"
    assert alone("sign", str(model), "--key", key).exit_code == 0
    assert _code(run("publish", "tree", str(model), "--example", words)) == "usage_invalid"
    (model / "modelyard.json").write_text("{}")
    assert _code(run("publish", "tree", str(model))) == "signature_invalid"
    other = parsed(alone("signer", "create", str(tmp_path / "other.pem"), "--json"))
    monkeypatch.setenv("MODELYARD_MODELS__REQUIRE_SIGNATURE", "true")
    monkeypatch.setenv("MODELYARD_MODELS__TRUSTED_SIGNERS", json.dumps([other["trusted_signers"]]))
    assert _code(run("publish", "tree", str(model), "--sign", key)) == "signer_unknown"
    assert _code(run("publish", "tree", str(model / "model.onnx"))) == "signature_missing"
    assert parsed(run("models", "list", "--json")) == {"models": []}


@pytest.mark.parametrize("form", ["folder", "file"])
def test_what_openssf_s_own_tool_signed(
    form: str, model: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with its bundle, or a file with one beside it: checked before, published, and shown with the method;
    `signer show` names the same key; words beside it are refused."""
    bundler = modelsigners.key()
    public = tmp_path / "bundler.pub"
    public.write_text(modelsigners.public_pem(bundler))
    source = model if form == "folder" else model / "model.onnx"
    modelsigners.sign(source, bundler, None if form == "folder" else model / "model.onnx.sig")
    checked = parsed(alone("signer", "check", str(source), "--trusted", str(public), "--json"))
    shown = parsed(alone("signer", "show", str(public), "--json"))
    assert checked == {"signer": shown["signer"], "method": "openssf-key", "authority": None}
    assert "openssf-key" in alone("signer", "check", str(source), "--trusted", str(public)).stdout
    words = str(model / "modelyard.json")
    assert _code(run("publish", "tree", str(source), "--metrics", words)) == "usage_invalid"
    monkeypatch.setenv("MODELYARD_MODELS__REQUIRE_SIGNATURE", "true")
    monkeypatch.setenv("MODELYARD_MODELS__TRUSTED_SIGNERS", json.dumps([shown["trusted_signers"]]))
    published = parsed(run("publish", "tree", str(source), "--json"))
    assert (published["signing"]["signer"], published["signing"]["method"]) == (shown["signer"], "openssf-key")
    assert "(OpenSSF bundle)" in run("models", "show", "tree", "--version", "1").stdout


def test_checks_of_signatures(signer: dict[str, Any], model: Path, tmp_path: Path) -> None:
    """Of nobody, of an Ed25519 key, of another's, of an authority: what a server would say."""
    check = ("signer", "check", str(model), "--trusted")
    assert _code(alone(*check, signer["public_key"])) == "signature_missing"
    assert alone("sign", str(model), "--key", signer["private_key"]).exit_code == 0
    assert parsed(alone(*check, signer["public_key"], "--json"))["method"] == "ed25519"
    (model / "modelyard.sig").unlink()
    root = modelsigners.authority()
    (tmp_path / "root.pem").write_text(root.pem)
    modelsigners.sign(model, modelsigners.Certified(root))
    assert _code(alone(*check, signer["public_key"])) == "signer_unknown"
    shown = parsed(alone("signer", "show", str(tmp_path / "root.pem"), "--json"))
    assert parsed(alone(*check, str(tmp_path / "root.pem"), "--json"))["authority"] == shown["signer"]
    assert "models.trusted_signers" in alone("signer", "show", str(tmp_path / "root.pem")).stdout
    (model / "more").write_text("")
    assert _code(alone(*check, str(tmp_path / "root.pem"))) == "signature_invalid"
