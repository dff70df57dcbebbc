"""Triton's classification extension: the highest classes of an output as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from modelyard.codec import CODECS
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import AnswerContext, DecodedRequest, Signature, Surface

OUTPUTS = {"label": np.array([1, 0]), "scores": np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)}
ROW = {"name": "X", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}


def wanted(name: str, **parameters: Any) -> dict[str, Any]:
    return {"inputs": [ROW], "outputs": [{"name": name, "parameters": parameters}]}


def answered(request: DecodedRequest, signature: Signature) -> tuple[Any, bytes]:
    encoded = CODECS[Surface.OIP].encode(request, OUTPUTS, AnswerContext("m", "1", "id", signature))
    length = len(encoded.body) if encoded.header_length is None else encoded.header_length
    return orjson.loads(encoded.body[:length])["outputs"][0], encoded.body[length:]


def test_the_highest_classes_of_each_row(decode: Callable[..., DecodedRequest], tree: Signature) -> None:
    """`value:index:label`, highest first, the lower index first where scores are equal; at most all classes."""
    for classes, expected in (
        (1, ["0.750000:1:well", "0.500000:0:ill"]),
        (9, ["0.750000:1:well", "0.250000:0:ill", "0.500000:0:ill", "0.500000:1:well"]),
    ):
        said, _ = answered(decode(wanted("scores", classification=classes), tree), tree)
        shape = [2, len(expected) // 2]
        assert said == {"name": "scores", "datatype": "BYTES", "shape": shape, "data": expected}


def test_in_binary_too(decode: Callable[..., DecodedRequest], tree: Signature) -> None:
    """As BYTES, with their lengths."""
    said, blob = answered(decode(wanted("scores", classification=1, binary_data=True), tree), tree)
    assert said["parameters"] == {"binary_data_size": len(blob)}
    assert blob == b"\x0f\0\0\x000.750000:1:well\x0e\0\0\x000.500000:0:ill"


def test_whole_numbers_and_none_asked_for(decode: Callable[..., DecodedRequest], tree: Signature) -> None:
    """An integer output has its value as it is; 0 classes is the output itself."""
    assert answered(decode(wanted("label", classification=1), tree), tree)[0]["data"] == ["1:0:ill", "0:0:ill"]
    assert answered(decode(wanted("label", classification=0), tree), tree)[0]["data"] == [1, 0]


def test_what_cannot_be_classes(refusal: Callable[..., InvalidRequestError], tree: Signature, two: Signature) -> None:
    """No number of classes, and an output without scores, are refused by name."""
    for value in (-1, True, "3", 1.5):
        error = refusal(wanted("scores", classification=value), tree)
        assert (error.code, error.detail["field"]) == ("parameter_invalid", "outputs[0].parameters.classification")
    texts = [
        {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]},
        {"name": "n", "shape": [1], "datatype": "INT64", "data": [1]},
    ]
    body = {"inputs": texts, "outputs": [{"name": "out", "parameters": {"classification": 1}}]}
    assert refusal(body, two).code == "parameter_invalid"
