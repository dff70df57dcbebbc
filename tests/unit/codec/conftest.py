"""Signatures and short ways to decode that all codec tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from modelyard.codec import CODECS
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import CodecBounds, DecodedRequest, RawRequest, Signature, Surface, TensorSpec

TREE = Signature(
    inputs=(TensorSpec("X", "FP32", (-1, 3), columns=("age", "bmi", "sex")),),
    outputs=(
        TensorSpec("label", "INT64", (-1,), labels=("ill", "well")),
        TensorSpec("scores", "FP32", (-1, 2), labels=("ill", "well")),
    ),
)
TWO = Signature(
    inputs=(TensorSpec("text", "BYTES", (-1, 1)), TensorSpec("n", "INT64", (-1,))),
    outputs=(TensorSpec("out", "BYTES", (-1,)), TensorSpec("sum", "FP64", (-1, 1))),
)


@pytest.fixture
def tree() -> Signature:
    """One FP32 input of three named columns; a label and two scores out."""
    return TREE


@pytest.fixture
def two() -> Signature:
    """A BYTES and an INT64 input; BYTES and FP64 out."""
    return TWO


Decode = Callable[..., DecodedRequest]


@pytest.fixture
def decode() -> Decode:
    """Decodes a body (a value, or bytes) for a surface."""

    def run(
        body: Any,
        signature: Signature,
        surface: Surface = Surface.OIP,
        header: bytes | None = None,
        bounds: CodecBounds | None = None,
    ) -> DecodedRequest:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return CODECS[surface].decode(RawRequest(data, None, header), signature, bounds or CodecBounds())

    return run


@pytest.fixture
def refusal(decode: Decode) -> Callable[..., InvalidRequestError]:
    """The refusal of a body that must be refused; its detail must be valid JSON."""

    def run(*args: Any, **named: Any) -> InvalidRequestError:
        with pytest.raises(InvalidRequestError) as caught:
            decode(*args, **named)
        orjson.dumps(dict(caught.value.detail))
        assert caught.value.message
        return caught.value

    return run
