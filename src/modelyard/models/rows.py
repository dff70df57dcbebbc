"""Rows made from a signature: for the load check, for warm-up, and as the example that an error shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modelyard.core.types import DATATYPES, Array, Signature, Tensors, TensorSpec

FREE_SIZES = (1, 8, 32, 224)
"""What a dimension that varies (beside the batch) is tried with, in this order."""
WORDS = (b"a", b"model", b"yard", b"\xc3\xa9t\xc3\xa9")
MAX_SEEDED_ELEMENTS = 8 * 1024 * 1024
"""Most elements of the seeded rows of one tensor; wider models are checked with fewer rows."""


def is_batchable(signature: Signature) -> bool:
    """Whether every input and output has the batch as its first dimension."""
    specs = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(spec.shape[:1] == (-1,) for spec in specs)


def row_count(signature: Signature, most: int = 32) -> int:
    """How many seeded rows fit the bound; at least 2."""
    widest = max((int(np.prod(_concrete(spec, 1, 1)[1:], dtype=np.int64)) for spec in signature.inputs), default=1)
    return max(2, min(most, MAX_SEEDED_ELEMENTS // max(1, widest)))


def seeded_rows(signature: Signature, rows: int, seed: int, free: int = 1) -> dict[str, Array]:
    """Rows drawn from sensible ranges: floats around 0 (one in four large), integers 0 to 9, short words."""
    draw = np.random.default_rng(seed)
    return {spec.name: _draw(draw, spec.datatype, _concrete(spec, rows, free)) for spec in signature.inputs}


def spread_rows(signature: Signature, example: Tensors, rows: int, seed: int) -> dict[str, Array]:
    """Rows like the example's, scaled by 0.5 to 1.5 where they are floats, else repeated."""
    draw = np.random.default_rng(seed)
    result = {}
    for spec in signature.inputs:
        array = example[spec.name]
        repeated = np.resize(array, (rows, *array.shape[1:]))
        if spec.datatype.startswith("FP"):
            repeated = (repeated * draw.uniform(0.5, 1.5, repeated.shape)).astype(array.dtype)
        result[spec.name] = repeated
    return result


def attempts(signature: Signature, rows: int, seed: int) -> Iterator[dict[str, Array]]:
    """Seeded rows with one size after the other for the dimensions that vary."""
    varies = any(-1 in spec.shape[1:] for spec in signature.inputs)
    for free in FREE_SIZES if varies else FREE_SIZES[:1]:
        yield seeded_rows(signature, rows, seed, free)


def example_request(signature: Signature, example: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A request of one row in the Open Inference Protocol's JSON form that this model accepts: the owner's example
    if there is one, else one made from the signature."""
    if example is not None:
        return dict(example)
    tensors = seeded_rows(signature, 1, seed=0)
    return {
        "inputs": [
            {
                "name": spec.name,
                "shape": list(tensors[spec.name].shape),
                "datatype": spec.datatype,
                "data": [_plain(value) for value in tensors[spec.name].ravel().tolist()],
            }
            for spec in signature.inputs
        ]
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return round(value, 3) if isinstance(value, float) else value


def _concrete(spec: TensorSpec, rows: int, free: int) -> tuple[int, ...]:
    return tuple(size if size != -1 else (rows if i == 0 else free) for i, size in enumerate(spec.shape))


def _draw(draw: np.random.Generator, datatype: str, shape: tuple[int, ...]) -> Array:
    if datatype == "BYTES":
        words = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=np.object_)
        words[:] = [WORDS[i] for i in draw.integers(0, len(WORDS), words.size)]
        return words.reshape(shape)
    if datatype == "BOOL":
        return draw.integers(0, 2, shape).astype(np.bool_)
    if not datatype.startswith("FP"):
        return draw.integers(0, 10, shape).astype(DATATYPES[datatype])
    numbers = draw.standard_normal(shape)
    return np.where(draw.random(shape) < 0.25, numbers * 100, numbers).astype(DATATYPES[datatype])
