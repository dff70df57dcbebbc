"""The publish check's process: what it reports, and what happens when it hangs, dies or eats the memory."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from small_onnx import model, save  # type: ignore[import-not-found]

from modelyard.core.errors import PublishError
from modelyard.models.report import CheckOptions
from modelyard.runtimes import child
from modelyard.runtimes.child import check_in_child


def test_a_good_model_is_reported(tmp_path: Path) -> None:
    """The report crosses the process border whole."""
    report = check_in_child(save(model(), tmp_path / "m"), CheckOptions())
    assert (report.format, report.entry, report.profile.batched) == ("onnx", "model.onnx", True)
    assert report.signature.inputs[0].shape == (-1, 2)


def test_a_refusal_crosses_the_border(tmp_path: Path) -> None:
    """Code, sentence and detail are the child's."""
    with pytest.raises(PublishError) as refused:
        check_in_child(save(model(opset=99), tmp_path / "m"), CheckOptions())
    assert (refused.value.code, refused.value.detail["got"]) == ("opset_unsupported", 99)


def test_too_little_memory_is_a_refusal(tmp_path: Path) -> None:
    """The address space is bounded: a check that needs more ends with a code, not with this process."""
    with pytest.raises(PublishError):
        check_in_child(save(model(), tmp_path / "m"), CheckOptions(memory_bytes=64 * 1024**2))


def _fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("import time\ntime.sleep(60)", "publish_timeout"),
        ("import os\nos.kill(os.getpid(), 11)", "model_unreadable"),
        ("import os, time\nos.fork() or time.sleep(60)", "publish_timeout"),
        ("print('{\"report\": 1}')", "model_unreadable"),
        ("print('x' * 20_000_000)", "model_unreadable"),
        ('print(\'{"error": {"code": "scope_missing", "message": "m"}}\')', "warm_up_failed"),
    ],
)
def test_a_child_that_misbehaves_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str
) -> None:
    """Hanging, dying by a signal, leaving a grandchild with the pipe, lying or shouting: refused within the bound."""
    monkeypatch.setattr(child.sys, "executable", _fake_python(tmp_path, script))
    begun = time.monotonic()
    with pytest.raises(PublishError) as refused:
        check_in_child(tmp_path, CheckOptions(timeout_s=1.5))
    assert refused.value.code == code
    assert time.monotonic() - begun < 10


def test_nothing_of_the_child_survives_and_no_credential_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment holds no secret of ours; a grandchild it leaves behind is killed with its group."""
    monkeypatch.setenv("MODELYARD_AUTH__ADMIN_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    note = tmp_path / "note"
    script = (
        "import os, time\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os.close(1)\n    time.sleep(60)\n"
        f"open({str(note)!r}, 'w').write(f'{{pid}} {{sorted(os.environ)}}')\n"
    )
    monkeypatch.setattr(child.sys, "executable", _fake_python(tmp_path, script))
    with pytest.raises(PublishError):
        check_in_child(tmp_path, CheckOptions(timeout_s=10))
    pid, names = note.read_text().split(" ", 1)
    assert "SECRET" not in names
    assert "ADMIN" not in names
    deadline = time.monotonic() + 5
    while _alive(int(pid)):
        assert time.monotonic() < deadline


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
    finally:
        os.sched_yield()
