"""Z2: `python -m tests.fuzz TARGET --runs N` or `--seconds S`: coverage-guided, with atheris. What breaks one is kept
in tests/fuzz/corpus/TARGET and from then on a case of the tests; exit status 1."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import atheris
from tests.fuzz.mutation import CORPUS, keep
from tests.fuzz.targets import TARGETS


def instrument() -> None:
    """Counts the branches of the product's functions, and of nobody else's."""
    for name, module in list(sys.modules.items()):
        if name.startswith("modelyard."):
            for holder in (module, *(c for c in vars(module).values() if inspect.isclass(c))):
                for one in list(vars(holder).values()):
                    if inspect.isfunction(one) and one.__module__ == name:
                        atheris.instrument_func(one)


def main() -> None:
    """Runs one target to its bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=1e9)
    asked = parser.parse_args()
    target, found, done = TARGETS[asked.target], set[Any](), 0
    until = time.monotonic() + asked.seconds

    def once(data: bytes) -> None:
        nonlocal done
        try:
            target.check(data)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            if (kind := (type(error), place.filename, place.lineno)) not in found:
                found.add(kind)
                kept = keep(asked.target, data)
                print(f"{asked.target}: {error!r} at {place.filename}:{place.lineno}, kept as {kept}")
        done += 1
        if done >= asked.runs or time.monotonic() > until:
            print(f"{asked.target}: {done} inputs, {len(found)} findings", flush=True)
            os._exit(1 if found else 0)

    instrument()
    seeds = Path(tempfile.mkdtemp(prefix="modelyard-fuzz-"))
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    words = seeds.with_suffix(".dict")
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in target.tokens))
    (CORPUS / asked.target).mkdir(parents=True, exist_ok=True)
    options = [f"-dict={words}", f"-artifact_prefix={CORPUS / asked.target}/", "-timeout=10", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *options, str(seeds)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
