"""The client's side: rows as requests in the three forms, and what came back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import orjson
import urllib3

from modelyard.cli.demonstration.training import Lesson, tensor_json
from modelyard.core.types import Array

ANSWER_WITHIN_S = 30.0


class Form(StrEnum):
    """The ways to ask."""

    OIP_JSON = "OIP, JSON"
    OIP_BINARY = "OIP, binary"
    PREDICTIONS = "/v1 predictions"


@dataclass(frozen=True)
class Asked:
    """One request, ready to send; `first` and `count` say which rows of the held-out table it holds."""

    form: Form
    first: int
    count: int
    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Got:
    """One answer. `labels` are the classes' numbers, -1 where a row was refused; empty unless `status` is 200. `said`
    is the version that the body names, `version` the one in the header; `sent_s` is monotonic. Status 0: no answer."""

    asked: Asked
    status: int
    labels: tuple[int, ...]
    version: str
    said: str
    prediction_id: str
    sent_s: float
    took_s: float


class Client(Protocol):
    """Sends requests one after the other, on one connection."""

    def ask(self, asked: Asked, classes: tuple[str, ...]) -> Got:
        """Never raises for what the server does."""


class HttpClient:
    """A Client over one keep-alive connection; it never tries again."""

    def __init__(self, url: str, key: str) -> None:
        timeout = urllib3.Timeout(ANSWER_WITHIN_S)
        self._pool = urllib3.connectionpool.connection_from_url(url, maxsize=1, retries=False, timeout=timeout)
        self._key = key

    def ask(self, asked: Asked, classes: tuple[str, ...]) -> Got:
        """One request, timed from its first byte out to its last byte in."""
        headers = {**asked.headers, "x-api-key": self._key}
        sent_s = time.perf_counter()
        try:
            answer = self._pool.request("POST", asked.path, body=asked.body, headers=headers)
        except urllib3.exceptions.HTTPError:
            return Got(asked, 0, (), "", "", "", sent_s, time.perf_counter() - sent_s)
        took_s = time.perf_counter() - sent_s
        fields = answer.headers
        labels, said = _read(answer.data, fields, classes) if answer.status == 200 else ((), "")
        version, prediction_id = fields.get("x-model-version", ""), fields.get("x-prediction-id", "")
        return Got(asked, answer.status, labels, version, said, prediction_id, sent_s, took_s)

    def close(self) -> None:
        """Closes the connection."""
        self._pool.close()


def request(lesson: Lesson, form: Form, first: int, count: int, pinned: bool) -> Asked:
    """Rows `first` to `first + count` of the lesson; `pinned` asks for its version, whatever the traffic says."""
    rows = lesson.rows[first : first + count]
    count = len(rows)
    name = f"{lesson.model}/versions/{lesson.version}" if pinned else lesson.model
    if form is Form.PREDICTIONS:
        items = [dict(zip(lesson.columns, row, strict=True)) for row in rows.tolist()]
        body = orjson.dumps({"items": items})
        return Asked(form, first, count, f"/v1/models/{name}/predictions", body, {"content-type": "application/json"})
    path = f"/v2/models/{name}/infer"
    if form is Form.OIP_JSON:
        body = orjson.dumps({"inputs": [tensor_json("X", rows)], "outputs": [{"name": "label"}]})
        return Asked(form, first, count, path, body, {"content-type": "application/json"})
    return Asked(form, first, count, path, *_binary(rows))


def _binary(rows: Array) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the protocol's binary tensor extension."""
    blob = np.ascontiguousarray(rows, "<f4").tobytes()
    tensor = {"name": "X", "datatype": "FP32", "shape": rows.shape, "parameters": {"binary_data_size": len(blob)}}
    wanted = {"name": "label", "parameters": {"binary_data": True}}
    head = orjson.dumps({"inputs": [tensor], "outputs": [wanted]})
    kind = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return head + blob, kind


def _read(body: bytes, fields: Mapping[str, str], classes: tuple[str, ...]) -> tuple[tuple[int, ...], str]:
    """The labels and the version that an answer of any form gives."""
    length = fields.get("inference-header-content-length")
    document: dict[str, Any] = orjson.loads(body if length is None else body[: int(length)])
    if "results" in document:
        number = {name: place for place, name in enumerate(classes)}
        named = (result.get("output", {}).get("label_name") for result in document["results"])
        return tuple(number.get(name, -1) for name in named), document["version"]
    said = document["model_version"]
    if length is None:
        return tuple(document["outputs"][0]["data"]), said
    return tuple(np.frombuffer(body[int(length) :], "<i8").tolist()), said
