"""S10, S11: what a hostile model may try in its jail, and when it gets into one at all."""

from __future__ import annotations

import errno
import json
import os
import pickle
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from jailed import BOUNDS, OPTIONS, SIGNATURE, STATED, back, jailed, misdeed, python_model
from modelyard.core.clock import SystemClock
from modelyard.core.errors import PublishError, UnavailableError
from modelyard.core.settings import load_settings
from modelyard.models.catalog import Catalog
from modelyard.models.publish import Publisher
from modelyard.models.signing import keys
from modelyard.models.signing.statement import SIGNATURE_FILE, sign
from modelyard.models.stage import hash_folder
from modelyard.runtimes import RUNTIMES, detect
from modelyard.runtimes.child import check_in_child
from modelyard.runtimes.jail.model import JailedModel
from modelyard.testing import MemoryArtifactStore, MemoryRegistry

KEY = keys.key_from_seed(bytes(32))
SIGNER = keys.public_line(keys.public_bytes(KEY))

TRIES = """
import ctypes, os, socket, subprocess, threading, time
import numpy as np

OUTSIDE = {outside!r}
SECRET = {secret!r}


def network():
    socket.create_connection(("127.0.0.1", {port}), 1)


def connect_by_hand():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(41, 2, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "socket")


def write_outside():
    open(OUTSIDE, "w").write("ran")


def write_inside():
    open(os.path.join(os.path.dirname(__file__), "more.py"), "w").write("ran")


def write_shared():
    open("/dev/shm/modelyard-jail-canary", "w").write("ran")


def read_secret():
    open(SECRET).read()


def read_init():
    open("/proc/1/environ", "rb").read()


def read_server():
    open("/proc/%d/maps" % os.getppid()).read()


def fork():
    os.fork()


def shell():
    subprocess.run(["/bin/sh", "-c", "echo ran > " + OUTSIDE], check=True)


def spawn():
    os.posix_spawn("/bin/true", ["true"], {{}})


def kill_server():
    os.kill(os.getppid(), 9)


def kill_all():
    os.kill(-1, 9)


def signal_by_owner():
    import fcntl, json, sys
    channel = json.loads(sys.argv[1])["channel"]
    fcntl.fcntl(channel, fcntl.F_SETOWN, os.getppid())


def trace_server():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def become_root():
    os.setuid(0)


def new_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) < 0:
        raise OSError(ctypes.get_errno(), "unshare")


def shrink_memory():
    import json, sys
    os.ftruncate(json.loads(sys.argv[1])["area"], 0)


def survive():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(1, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def io_uring():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 8, ctypes.create_string_buffer(256)) < 0:
        raise OSError(ctypes.get_errno(), "io_uring")


def ten_gigabytes():
    np.ones(10 * 1024**3, np.uint8)


def thread_bomb():
    for _ in range(100_000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


TRIES = [v for v in globals().values() if callable(v) and getattr(v, "__module__", "") == __name__]


class Model:
    def load(self, folder):
        pass

    def predict(self, inputs):
        number = int(inputs["x"][0, 0])
        if number:
            try:
                TRIES[number - 1]()
            except (OSError, MemoryError, RuntimeError) as error:
                return {{"y": np.full_like(inputs["x"], getattr(error, "errno", None) or -1)}}
            return {{"y": np.full_like(inputs["x"], 999.0)}}
        return {{"y": inputs["x"] * 2}}
"""
REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS)
BOUNDED = ("ten_gigabytes", "thread_bomb")
"""Tries that end at a bound: MemoryError and RuntimeError have no number (-1)."""
NAMES = [line[4:-3] for line in TRIES.splitlines() if line.startswith("def ")]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a secret, and the hostile model in a folder below."""
    folder = tmp_path_factory.mktemp("arena")
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o644)
    source = TRIES.format(outside=str(folder / "ran"), secret=str(folder / "secret"), port=9)
    python_model(folder / "model", source)
    return folder


@pytest.fixture(scope="module")
def hostile(arena: Path) -> Iterator[JailedModel]:
    """The hostile model in its jail."""
    loaded = jailed(arena / "model", msgspec.structs.replace(BOUNDS, deaths=1000, run_s=20.0))
    yield loaded
    loaded.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_model_is_contained(name: str, hostile: JailedModel, arena: Path) -> None:
    """S11: network, files outside, other processes, more processes, more rights, more memory: each try is refused by
    the kernel inside the jail; nothing of it is seen outside, and this process goes on."""
    back(hostile)
    answered = hostile.run({"x": np.full((1, 2), NAMES.index(name) + 1.0)}, ())["y"]
    assert answered[0, 0] in (-1.0, errno.EAGAIN, errno.ENOMEM) if name in BOUNDED else answered[0, 0] in REFUSED
    assert sorted(path.name for path in arena.iterdir()) == ["model", "secret"]
    assert not (arena / "model" / "more.py").exists()
    assert not Path("/dev/shm/modelyard-jail-canary").exists()
    back(hostile)


CROWD = """
import threading, time

class Model:
    def load(self, folder):
        threading.stack_size(64 * 1024)

    def predict(self, inputs):
        for _ in range(int(inputs["x"][0, 0])):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return {"y": inputs["x"]}
"""


def test_threads_with_small_stacks_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S11: six thousand threads of 64 KiB fit the memory, but not the bound; a process that has many is ended, and the
    next run says so."""
    from modelyard.runtimes.jail import watch

    monkeypatch.setattr(watch, "TICK_S", 0.1)
    monkeypatch.setattr(watch, "MAX_THREADS", 300)
    bounds = msgspec.structs.replace(BOUNDS, memory_bytes=4 * 1024**3, run_s=20.0)
    loaded = jailed(python_model(tmp_path / "m", CROWD), bounds)
    try:
        assert misdeed(loaded, 100) == ""
        assert misdeed(loaded, 6000) in ("model_failed", "model_timeout")
        until_s = time.monotonic() + 20
        while (code := misdeed(loaded, 0)) != "model_timeout" and code != "model_not_ready":
            assert time.monotonic() < until_s, "it keeps its threads"
            time.sleep(0.02)
    finally:
        loaded.close()


def test_threads_end_with_the_process_that_started_it(arena: Path) -> None:
    """K10: a process whose starting thread is gone is killed by the kernel: here the whole of it is one."""
    import subprocess
    import sys

    code = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\nfrom jailed import jailed\n"
        "loaded = jailed(Path(sys.argv[1]))\nprint(loaded.pid, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(arena / "model"), *(path for path in sys.path if path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    until_s = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until_s, "it outlived its parent"
        time.sleep(0.01)


def test_a_process_that_spins_beside_its_runs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S11: a thread that computes on after the answer is ended once it used its spare time; the next run says so."""
    from modelyard.runtimes.jail import watch

    monkeypatch.setattr(watch, "SPARE_CPU_S", 0.3)
    monkeypatch.setattr(watch, "TICK_S", 0.1)
    source = (
        "import threading\n"
        "class Model:\n"
        "    def load(self, folder): pass\n"
        "    def predict(self, inputs):\n"
        "        threading.Thread(target=self.spin, daemon=True).start()\n"
        "        return {'y': inputs['x']}\n"
        "    def spin(self):\n"
        "        while True: pass\n"
    )
    loaded = jailed(python_model(tmp_path / "m", source))
    try:
        assert misdeed(loaded, 1) == ""
        pid = loaded.pid
        until_s = time.monotonic() + 20
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < until_s, "it spins on"
            time.sleep(0.02)
        assert misdeed(loaded, 1) == "model_timeout"
    finally:
        loaded.close()


class Yard:
    """A publisher over fakes that allows these formats and trusts SIGNER."""

    def __init__(self, folder: Path, *formats: str) -> None:
        bounds = {"models.jail_memory_bytes": 1024**3, "models.jail_tensor_bytes": 4 * 1024**2}
        self.settings = load_settings(
            data=folder / "data", **{"models.unsafe_formats": formats, "models.trusted_signers": (SIGNER,), **bounds}
        )
        self.registry, self.artifacts = MemoryRegistry(), MemoryArtifactStore()
        self.publisher = Publisher(self.registry, self.artifacts, self.settings, SystemClock(), check_in_child)

    def refuse(self, source: Path) -> PublishError:
        """The refusal of a publish, which leaves nothing."""
        with pytest.raises(PublishError) as refused:
            self.publisher.publish("tree", source)
        assert self.registry.versions() == ()
        assert list((self.settings.data / "staging").iterdir()) == []
        return refused.value


def signed(folder: Path, key: Any = KEY) -> Path:
    """The folder with its signature."""
    (folder / SIGNATURE_FILE).unlink(missing_ok=True)
    (folder / SIGNATURE_FILE).write_bytes(sign(hash_folder(folder, 10**9), key))
    return folder


class Gadget:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return (exec, (f"open({self.canary!r}, 'w').write('ran')",))


def _pickled(form: str, canary: Path, file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    content = pickle.dumps(Gadget(canary), protocol=4)
    if form == "joblib":
        import joblib

        joblib.dump(Gadget(canary), file)
    elif form == "cloudpickle":
        import cloudpickle

        file.write_bytes(cloudpickle.dumps(Gadget(canary)))
    else:
        file.write_bytes(zlib.compress(content) if form == "compressed" else content)
    return file


@pytest.mark.parametrize("form", ["pickle", "joblib", "cloudpickle", "compressed"])
def test_a_pickle_is_refused_by_default(form: str, tmp_path: Path) -> None:
    """S10: under whatever name, signed or not, with a sentence that names what to do instead; it never ran."""
    ran = tmp_path / "ran"
    file = _pickled(form, ran, tmp_path / "m" / "model.onnx")
    if form == "pickle":  # the whole way once
        found = Yard(tmp_path).refuse(signed(file.parent))
    else:
        with pytest.raises(PublishError) as refused:
            detect(file.parent, ["python"])
        found = refused.value
    assert found.code == "format_not_allowed"
    assert all(word in found.message for word in ("skops", "ONNX", "models.unsafe_formats"))
    assert not ran.exists()


def test_what_is_allowed_must_be_signed_by_somebody_trusted(tmp_path: Path) -> None:
    """S10: with the format allowed an unsigned pickle and one of a stranger's are refused, each with its code, and
    never ran; so is the format that is not the allowed one."""
    ran = tmp_path / "ran"
    file = _pickled("pickle", ran, tmp_path / "m" / "model.pkl")
    assert Yard(tmp_path, "pickle").refuse(file).code == "signature_missing"
    stranger = signed(file.parent, keys.key_from_seed(b"x" * 32))
    assert Yard(tmp_path, "pickle").refuse(stranger).code == "signer_unknown"
    assert Yard(tmp_path, "python").refuse(signed(file.parent)).code == "format_not_allowed"
    assert not ran.exists()


def test_a_gadget_is_contained_in_the_jail(tmp_path: Path) -> None:
    """S10: allowed and signed, its code runs, in the jail: its canary is not there, and it is no model."""
    ran = tmp_path / "ran"
    refused = Yard(tmp_path, "pickle").refuse(signed(_pickled("pickle", ran, tmp_path / "m" / "model.pkl").parent))
    assert refused.code == "warm_up_failed"
    assert not ran.exists()


def test_a_class_is_published_signed_and_served_from_its_jail(tmp_path: Path) -> None:
    """P8: from a folder to answers: signed, checked in a jail, loaded into one, never on the event loop; settings that
    no longer allow it keep it out."""
    folder = python_model(tmp_path / "m")
    (folder / "modelyard.json").write_text(json.dumps(STATED))
    yard = Yard(tmp_path, "python")
    version = yard.publisher.publish("tree", signed(folder)).version
    assert (version.manifest.format, version.manifest.entry) == ("python", "python.json")
    assert version.manifest.signature == SIGNATURE
    catalog = Catalog(yard.artifacts, RUNTIMES, yard.settings, SystemClock())
    catalog.refresh((version,))
    try:
        servable = catalog.get("tree", "1")
        assert servable.profile.batched
        assert not servable.profile.in_loop
        np.testing.assert_array_equal(servable.loaded.run({"x": np.ones((3, 2))}, ())["y"], np.full((3, 2), 2.0))
        strict = Catalog(yard.artifacts, RUNTIMES, Yard(tmp_path).settings, SystemClock())
        strict.refresh((version,))
        with pytest.raises(UnavailableError, match="unsafe_formats"):
            strict.get("tree", "1")
    finally:
        catalog.close()


@pytest.mark.parametrize(
    ("source", "stated", "code"),
    [
        ("raise SystemExit(3)", OPTIONS, "warm_up_failed"),
        ("import nothing_of_this_name", OPTIONS, "warm_up_failed"),
        ("class Other: pass", OPTIONS, "warm_up_failed"),
        ("class Model: pass", OPTIONS, "warm_up_failed"),
        ("import os; os.kill(os.getpid(), 9)", OPTIONS, "warm_up_failed"),
        ("", {}, "manifest_invalid"),
    ],
)
def test_a_class_that_cannot_be_loaded_is_refused(
    source: str, stated: dict[str, Any], code: str, tmp_path: Path
) -> None:
    """Whatever its module does while it is loaded, and where its signature is not stated: a code, no path, no process
    left."""
    folder = python_model(tmp_path / "m", source)
    options = {**stated, "jail": msgspec.structs.asdict(BOUNDS)}
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PublishError) as refused:
        RUNTIMES["python"].inspect(folder, "python.json", options)
    assert refused.value.code == code
    assert str(tmp_path) not in refused.value.message
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # that of the list itself
