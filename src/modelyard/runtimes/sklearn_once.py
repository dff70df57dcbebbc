"""What an estimator computes for several of its outputs, computed once.

A served classifier is asked for labels and for probabilities of the same rows. Each of the library's two methods begins
anew: with the steps of a pipeline, with the decision function, with the votes of the trees. Both stay the library's
own here, so that each answer is its own to the last bit; the second only finds what the first began with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.core.types import Array

SHARED = ("decision_function", "predict_proba")
"""Methods that the library's own `predict` and `predict_proba` begin with."""


class Remembered:
    """A method that computes once for the rows that are `wanted`. It gives out copies, since callers change what they
    get (`softmax(copy=False)`). Two threads at once cost a second computation, and nothing else."""

    def __init__(self, method: Any) -> None:
        self.wanted: Any = None
        self._method = method
        self._known: tuple[Any, Array] | None = None

    def __call__(self, rows: Any, *others: Any, **named: Any) -> Any:
        """The method's own answer."""
        if rows is not self.wanted or others or named:
            return self._method(rows, *others, **named)
        known = self._known
        if known is None or known[0] is not rows:
            known = self._known = (rows, self._method(rows))
        return known[1].copy()

    def forget(self) -> None:
        """Lets go of the rows and of the answer."""
        self.wanted = self._known = None


class SharedEstimator:
    """A fitted estimator that is asked for several of its outputs at once. `scores`: it gives probabilities, one matrix
    of them."""

    def __init__(self, estimator: Any, scores: bool) -> None:
        self._before, self._last = _steps(estimator)
        self._remembered: dict[str, Remembered] = {}
        if scores and hasattr(self._last, "__dict__"):
            shared = {name: getattr(self._last, name, None) for name in SHARED}
            self._remembered = {name: Remembered(method) for name, method in shared.items() if method is not None}
            # In front of the class's methods: those call each other through the estimator.
            vars(self._last).update(self._remembered)

    def answers(self, methods: Mapping[str, str], names: Sequence[str], rows: Any) -> dict[str, Any]:
        """By the names of outputs, what their `methods` say of the rows."""
        last, remembered = self._last, self._remembered.values()
        for step in self._before:
            rows = step.transform(rows)
        try:
            for each in remembered:
                each.wanted = rows
            return {name: getattr(last, methods[name])(rows) for name in names}
        finally:
            for each in remembered:
                each.forget()

    def close(self) -> None:
        """The estimator as it was: it is not held by its own methods any more."""
        for name in self._remembered:
            vars(self._last).pop(name, None)


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """What transforms, in order, and what predicts: of a pipeline, in which each output's method would transform."""
    from sklearn.pipeline import Pipeline

    before: list[Any] = []
    while type(estimator) is Pipeline:
        before += [step for _, step in estimator.steps[:-1] if step is not None and not isinstance(step, str)]
        estimator = estimator.steps[-1][1]
    return before, estimator
