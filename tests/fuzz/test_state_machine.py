"""Random lives of a data folder against a small model of what must hold (Z5).

Publishing, traffic, keys, predictions, drains and kills in any order, on the real stores and the real spool.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parent))

from yard import Yard

from modelyard.core.errors import AuthenticationError, ConflictError, NotFoundError
from modelyard.core.settings import Settings
from modelyard.journal.ports import RecordFilter
from modelyard.storage.sql.open import open_stores

MODELS, VERSIONS, SUBJECTS = ("tree", "bush"), ("1", "2", "3"), ("ann", "ben", "cem", "dan", "eve")
TORN = st.integers(0, 400)
"""How much of a turn a killed worker had written; never the mark that ends it."""


class Life(RuleBasedStateMachine):
    """The fields are the model: what was acknowledged, and nothing else, must be found."""

    template: ClassVar[Path]
    lived: ClassVar[dict[str, int]]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.template.parent))
        shutil.copytree(self.template, self.folder / "data")
        self.yard = Yard(self.folder / "data")
        self.published: dict[tuple[str, str], float] = {}
        self.weights: dict[str, tuple[tuple[str, int], ...]] = {}
        self.revisions: dict[str, int] = {}
        self.keys: list[tuple[str, str]] = []
        self.revoked: set[str] = set()
        self.arms: dict[object, str] = {}
        self.acknowledged: dict[str, tuple[str, str, str, str, float, float]] = {}

    @initialize()
    def begin(self) -> None:
        """Something to predict with."""
        self.publish("tree", "1", 2.0, dies=False)
        self.issue()
        self.predict(0, "tree", ["ann"], 1)

    @rule(model=st.sampled_from(MODELS), name=st.sampled_from(VERSIONS), k=st.sampled_from((2.0, 3.0)),
          dies=st.sampled_from((False, False, False, True)))  # fmt: skip
    def publish(self, model: str, name: str, k: float, dies: bool) -> None:
        """New, the same again, or refused: a version never changes."""
        there = self.published.get((model, name))
        if there not in (None, k) and not dies:
            with pytest.raises(ConflictError) as caught:
                self.yard.publish(model, name, k, dies)
            assert caught.value.code == "version_exists"
            return
        assert self.yard.publish(model, name, k, dies) is (there is None and not dies)
        if there is None and not dies:
            self.published[model, name] = k
            if model not in self.weights:
                self.weights[model], self.revisions[model] = ((name, 100),), 1

    @rule(model=st.sampled_from(MODELS), names=st.permutations(VERSIONS), share=st.integers(0, 100),
          late=st.integers(0, 1))  # fmt: skip
    def set_traffic(self, model: str, names: list[str], share: int, late: int) -> None:
        """The new weights as a whole, or a refusal: of what does not exist, or was seen otherwise."""
        weights = ((names[0], share), (names[1], 100 - share))
        seen = self.revisions.get(model, 1) - late
        if model not in self.weights or any((model, name) not in self.published for name, _ in weights):
            with pytest.raises((NotFoundError, ConflictError)):
                self.yard.stores.endpoints.set_traffic(model, weights, seen)
        elif late:
            with pytest.raises(ConflictError):
                self.yard.stores.endpoints.set_traffic(model, weights, seen)
        else:
            self.revisions[model] = self.yard.stores.endpoints.set_traffic(model, weights, seen).revision
            self.weights[model] = weights

    @precondition(lambda self: len(self.keys) < 4)
    @rule()
    def issue(self) -> None:
        """A key that predicts."""
        self.keys.append(self.yard.issue())

    @precondition(lambda self: self.keys)
    @rule(number=st.integers(0, 3))
    def revoke(self, number: int) -> None:
        """From here on it opens nothing."""
        _, key_id = self.keys[number % len(self.keys)]
        self.yard.stores.keys.revoke(key_id, 1.0)
        self.revoked.add(key_id)

    @precondition(lambda self: self.keys)
    @rule(number=st.integers(0, 3), model=st.sampled_from(MODELS), x=st.integers(-5, 5),
          subjects=st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=4))  # fmt: skip
    def predict(self, number: int, model: str, subjects: list[str], x: int) -> None:
        """Answers come from published versions that have traffic, the same subject's from the same."""
        key, key_id = self.keys[number % len(self.keys)]
        if key_id in self.revoked or model not in self.weights:
            with pytest.raises(AuthenticationError if key_id in self.revoked else NotFoundError):
                self.yard.predict(key, model, subjects, x)
            return
        shares = dict(self.weights[model])
        for one, (subject, version, y) in self.yard.predict(key, model, subjects, x).items():
            assert shares.get(version, 0) > 0
            assert y == x * self.published[model, version]
            assert self.arms.setdefault((model, self.weights[model], subject), version) == version
            assert one not in self.acknowledged
            self.acknowledged[one] = (model, version, subject, key_id, float(x), y)

    @rule(rotated=st.booleans())
    def drain(self, rotated: bool) -> None:
        """Each acknowledged record is in the log once, with its own values, and nothing else is."""
        if rotated:
            self.yard.rotate()
        assert self.yard.drain()
        log = self.logged()
        assert len(log) == len(self.acknowledged)
        assert dict(log) == self.acknowledged

    @rule(who=st.sampled_from(("drain", "worker", "all")), torn=TORN, calls=st.integers(1, 3), after=st.booleans())
    def kill(self, who: str, torn: int, calls: int, after: bool) -> None:
        """The drain around a store or a forget; the worker, whose unfinished turn is no record; all at once. What is
        logged so far was acknowledged, and is there once."""
        self.count(f"{who} killed", who != "drain" or not self.yard.drain(calls, after))
        if who == "worker":
            self.yard.kill_worker(torn)
        elif who == "all":
            self.yard.kill(torn)
        assert dict(self.logged()).items() <= self.acknowledged.items()

    @invariant()
    def the_state_is_what_was_acknowledged(self) -> None:
        """Versions with their bytes, and traffic."""
        stores = self.yard.stores
        found = {(one.model, one.version): self.yard.k_of(one.digest) for one in stores.registry.versions()}
        assert found == self.published
        assert {one.name: (one.weights, one.revision) for one in stores.endpoints.endpoints()} == {
            name: (weights, self.revisions[name]) for name, weights in self.weights.items()
        }

    def logged(self) -> list[tuple[str, tuple[str, str, str, str, float, float]]]:
        """The whole log in the form of `acknowledged`."""
        records = [one for chunk in self.yard.stores.log.export(RecordFilter(), 100) for one in chunk]
        assert len({one["id"] for one in records}) == len(records)
        assert self.yard.stores.quarantine.page(RecordFilter(), 1, None).records == ()
        return [
            (one["id"], (one["model"], one["version"], one["subject"], one["key_id"],
                         one["inputs"]["x"][0]["a"], one["outputs"]["y"][0][0]))
            for one in records
        ]  # fmt: skip

    def count(self, what: str, number: int = 1) -> None:
        """For the line that is printed."""
        self.lived[what] = self.lived.get(what, 0) + number

    def teardown(self) -> None:
        """One last start and drain find everything; no file is left."""
        try:
            self.yard.kill()
            self.drain(rotated=True)
            assert not list((self.folder / "data" / "spool").glob("*.damaged"))
            self.count("lives")
            self.count("records", len(self.acknowledged))
        finally:
            self.yard.end()
            shutil.rmtree(self.folder)


@pytest.mark.parametrize("lives", [12, pytest.param(3_000, marks=pytest.mark.long)])
def test_no_life_of_a_data_folder_differs_from_the_model(tmp_path: Path, lives: int) -> None:
    """Z5 P1 P5 P6: routing answers only from published versions with traffic, an acknowledged record is in the log
    exactly once after a drain, a revoked key opens nothing, a version never changes; whoever is killed meanwhile.
    The short form is derandomized; counts are printed."""
    Life.template, Life.lived = tmp_path / "template", {}
    open_stores(Settings(data=Life.template), Life.template).close()
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=lives, stateful_step_count=30, derandomize=lives < 100, deadline=None, database=None,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    print(f"{Life.lived}")
    assert min(Life.lived[what] for what in ("drain killed", "worker killed", "all killed", "records")) > 0
