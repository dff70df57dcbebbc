"""Read by the interpreter of a server under test (PYTHONPATH): its workers' ONNX models commit the misdeed that an
input value below -9000 names, and its spools end the process around the write of a marked request. The product holds
nothing of this."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from typing import Any

TARGETS = {"modelyard.runtimes.onnx": "arm", "modelyard.journal.spool": "arm_spool"}


class Finder(importlib.abc.MetaPathFinder):
    """Arms one module when it is imported."""

    def __init__(self, target: str) -> None:
        self._target = target

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._target:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            import misdeed

            getattr(misdeed, TARGETS[name])(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if {"modelyard.entry.worker", "serve"}.intersection(sys.orig_argv):  # the server forks its first workers
    sys.meta_path[:0] = map(Finder, TARGETS)
