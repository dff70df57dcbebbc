"""F10 Z4: damaged files of every format end in a code or are still models; nothing of it reaches the server."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import damaged
import pytest
from check_forks import Fate, Forks, forks
from runtime_samples import SAMPLES, Sample  # type: ignore[import-not-found]
from server import RunningServer

from modelyard.core.errors import CODES, PublishError

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from figures import record

SHORT, LONG = (8, 33), (64, 1000)
"""Cuts and flipped bits of each format; the flips of the short form are 200 in all."""
SHORT_FORMS = ("sklearn", "lightgbm", "xgboost-json", "xgboost-ubj", "torchscript", "torch-export")
"""ONNX has its short form in test_hostile_models.py; TensorFlow takes too long to import for one."""
GROWN_BYTES = 64 * 1024**2
"""Beyond what a good model of the format takes."""
LIBRARIES = ("sklearn", "skops.io", "lightgbm", "xgboost", "torch", "torch.export")


@pytest.fixture(scope="module")
def checks() -> Iterator[Forks]:
    """The publish check in forks."""
    with forks(*LIBRARIES) as running:
        yield running


@pytest.fixture(scope="module")
def all_checks() -> Iterator[Forks]:
    """The same with every library."""
    with forks(*LIBRARIES, "onnx", "onnxruntime", "tensorflow") as running:
        yield running


def _files(form: str, content: bytes, counts: tuple[int, int], seed: int) -> Iterator[tuple[str, bytes]]:
    cuts, flips = counts
    yield "empty", b""
    yield "wrong magic", damaged.wrong_magic(content)
    yield from (("cut", each) for each in damaged.cuts(content, cuts))
    draw = random.Random(seed)
    for _ in range(flips):
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        yield "flip", bytes(changed)
    yield from damaged.TRICKS[form](content)


def _damage_all(form: str, checks: Forks, folder: Path, counts: tuple[int, int]) -> None:
    (folder / form).mkdir()
    sample: Sample = SAMPLES[form]("iris", folder / form)
    good = checks.check(sample.write(folder / "good"), sample.options)
    assert good.code == "served", good
    fates: dict[str, list[Fate]] = {}
    for number, (kind, content) in enumerate(_files(form, sample.content, counts, seed=11)):
        fate = checks.check(sample.write(folder / str(number), content), sample.options)
        refused = fate.code.startswith("died") or issubclass(CODES.get(fate.code, object), PublishError)
        assert fate.code == "served" or refused, (kind, fate)
        assert str(folder) not in fate.message
        assert fate.grown_bytes <= good.grown_bytes + GROWN_BYTES, (kind, fate)
        fates.setdefault(kind, []).append(fate)
    assert {fate.code for fate in fates["empty"]} == {"model_empty"}
    assert {fate.code for fate in fates.get("newline", ())} <= {"format_not_allowed", "model_unreadable"}
    assert {fate.code for fate in fates["wrong magic"]} <= {"model_unreadable", "format_unknown"}
    every = Counter(fate.code for several in fates.values() for fate in several)
    record(
        f"F10 Z4 {form}, damaged", files=every.total(), refused=every.total() - every["served"], served=every["served"],
        died=sum(count for code, count in every.items() if code.startswith("died")),
        most_memory_mib=max(fate.grown_bytes for several in fates.values() for fate in several) // 1024**2,
        **{f"{what}_{kind.replace(' ', '_')}": count for what in ("served", "died") for kind, several in fates.items()
           if (count := sum(fate.code.startswith(what) for fate in several))},
    )  # fmt: skip


@pytest.mark.parametrize("form", SHORT_FORMS)
def test_damaged_files_end_in_a_code(form: str, checks: Forks, tmp_path: Path) -> None:
    """F10 Z4: empty, cut off, flipped bits, another magic, claims of 2 GB, negative and huge shapes, NaN weights,
    newlines in names: each is refused with a code, or loads, warms up and answers. A library that dies of one takes the
    process of the check with it, which is a refusal (`runtimes/child.py`) and counted. That process takes at most
    64 MiB more than for the good file."""
    _damage_all(form, checks, tmp_path, SHORT)


@pytest.mark.long
@pytest.mark.parametrize("form", damaged.TRICKS)
def test_many_damaged_files_end_in_a_code(form: str, all_checks: Forks, tmp_path: Path) -> None:
    """F10 Z4: the same for every format, cut at 64 places, and with 1,000 flipped bits of each."""
    _damage_all(form, all_checks, tmp_path, LONG)


def _publish_damaged(fortress: RunningServer, folder: Path, forms: Sequence[str], kinds: int) -> Counter[str]:
    codes: Counter[str] = Counter()
    for form in forms:
        (folder / form).mkdir()
        content = SAMPLES[form]("iris", folder / form).content
        tricks = [content[: len(content) // 2], *(each for _, each in damaged.TRICKS[form](content))]
        for trick in tricks[:kinds]:
            reply = fortress.publish(f"damaged-{form}", trick)
            assert reply.status in (201, 422), reply.body
            codes["served" if reply.status == 201 else reply.json["code"]] += 1
    return codes


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def _check_server(fortress: RunningServer, folder: Path, forms: Sequence[str], kinds: int) -> None:
    workers = fortress.worker_pids()
    before = sum(map(_resident, workers))
    codes = _publish_damaged(fortress, folder, forms, kinds)
    assert fortress.worker_pids() == workers
    grown = sum(map(_resident, workers)) - before
    record("F10 server, damaged", publishes=codes.total(), **codes, grown_mib=grown // 1024**2)
    assert codes["served"] or grown <= GROWN_BYTES
    assert fortress.ask("GET", "/v2/health/ready", key=None).status == 200


def test_the_server_does_not_notice(fortress: RunningServer, tmp_path: Path) -> None:
    """F10 P8: damaged files over HTTP: a code each, the workers are those of before, and their memory
    has not grown by more than 64 MiB."""
    _check_server(fortress, tmp_path, ("onnx", "lightgbm"), 2)


@pytest.mark.long
def test_the_server_does_not_notice_any(fortress: RunningServer, tmp_path: Path) -> None:
    """F10 P8: every trick of every format over HTTP."""
    _check_server(fortress, tmp_path, tuple(damaged.TRICKS), 100)
