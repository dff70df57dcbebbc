"""Plans stacks and broken copies of them, two at a time, and keeps each plan under a digest of what made it."""

from __future__ import annotations

import hashlib
import json
import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infraproof.combinations import Stack
from infraproof.plan import Plan, parse
from infraproof.sources import tree_blocks, tree_digest
from infraproof.terraform import INFRA, Completed, TerraformError, Workspace, copy_of, patched

WORKERS = 2
#: For stacks that are planned from the schema alone; a Terraform with the provider itself doesn't know the variable.
FROM_SCHEMA = {"AWS_SHIM_MODE": "schema"}


@dataclass(frozen=True)
class Planned:
    """A plan that succeeded, and the seconds it took when it was made."""

    plan: Plan
    seconds: float
    file: Path


@dataclass(frozen=True)
class Edit:
    """One textual change of one source file: `old` must occur exactly once, so a stale mutation can't pass unseen."""

    file: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """The changed text; AssertionError when `old` isn't there exactly once."""
        count = text.count(self.old)
        assert count == 1, f"{self.file}: {self.old!r} occurs {count} times, expected once"
        return text.replace(self.old, self.new)


class Planner:
    """Owns the workspaces; every public call is safe from several threads."""

    def __init__(self, cli: str, folder: Path, cache: Path, source: Path = INFRA) -> None:
        self.cli, self.cache, self.source = cli, cache, source
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="plan")
        self._idle: queue.Queue[Workspace] = queue.Queue()
        self._futures: dict[str, Future[Planned]] = {}
        self._digest, self._blocks = tree_digest(source), tree_blocks(source)
        for number in range(WORKERS):
            self._idle.put(copy_of(source, folder / f"copy{number}", cli))

    def close(self) -> None:
        """Drop what hasn't started and wait for what has."""
        self._pool.shutdown(cancel_futures=True)

    @contextmanager
    def borrowed(self, stack: Stack) -> Iterator[Workspace]:
        """A workspace of one's own for the duration of the block."""
        workspace = self._idle.get()
        try:
            yield replace(workspace, environment=FROM_SCHEMA) if stack.schema_only else workspace
        finally:
            self._idle.put(workspace)

    def start(self, stack: Stack) -> Future[Planned]:
        """Begin planning a stack, once however often it is asked for."""
        if stack.name not in self._futures:
            self._futures[stack.name] = self._pool.submit(self._planned, stack)
        return self._futures[stack.name]

    def plan(self, stack: Stack) -> Planned:
        """The plan of a stack; TerraformError when Terraform refuses it."""
        return self.start(stack).result()

    def refused(self, stack: Stack) -> Future[tuple[str, ...]]:
        """The diagnostics with which Terraform refuses a stack; an empty tuple when it doesn't."""
        return self._pool.submit(self._refusal, stack)

    def broken(self, stack: Stack, edits: tuple[Edit, ...]) -> Future[Plan]:
        """Plan a stack from a copy of the sources with some text changed."""
        return self._pool.submit(self._broken, stack, edits)

    def _refusal(self, stack: Stack) -> tuple[str, ...]:
        with self.borrowed(stack) as workspace:
            done = workspace.run("plan", "-json", "-input=false", *self._arguments(workspace, stack))
        return done.errors

    def _planned(self, stack: Stack) -> Planned:
        key = hashlib.sha256(json.dumps([self._digest, self.cli, stack.name, stack.variables]).encode()).hexdigest()
        file = self.cache / f"{key[:32]}.json"
        if file.exists():
            kept = json.loads(file.read_text())
            return Planned(parse(kept["plan"], self._blocks), kept["seconds"], self._plan_file(stack, kept["plan"]))
        with self.borrowed(stack) as workspace:
            done, raw = workspace.plan(*self._arguments(workspace, stack))
        done.checked(f"plan of {stack.name}")
        file.write_text(json.dumps({"seconds": done.seconds, "plan": raw}))
        return Planned(parse(raw, self._blocks), done.seconds, self._plan_file(stack, raw))

    def _plan_file(self, stack: Stack, raw: dict[str, Any]) -> Path:
        """The plan as its own file, for tools that read `terraform show -json`."""
        file = self.cache / "readable" / f"{stack.name.replace('/', '_')}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(raw))
        return file

    def _broken(self, stack: Stack, edits: tuple[Edit, ...]) -> Plan:
        with self.borrowed(stack) as workspace, edited(workspace, edits):
            done, raw = workspace.plan(*self._arguments(workspace, stack))
            if done.code != 0:
                raise TerraformError(f"a broken copy must still plan, but: {refusal_text(done)}")
            return parse(raw, tree_blocks(workspace.path))

    def _arguments(self, workspace: Workspace, stack: Stack) -> tuple[str, ...]:
        return (*stack.arguments(), workspace.variable_file(stack.variables))


def refusal_text(done: Completed) -> str:
    """What Terraform said, shortened for a message."""
    return "\n".join(done.errors) or done.output[-2000:]


@contextmanager
def edited(workspace: Workspace, edits: tuple[Edit, ...]) -> Iterator[None]:
    """Apply the edits one after the other and undo them all afterwards."""
    if not edits:
        yield
        return
    file = workspace.path / edits[0].file
    with patched(file, edits[0].applied_to(file.read_text())), edited(workspace, edits[1:]):
        yield
