"""The values that travel between the stations; frozen, so that nobody edits what another holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""One tensor; row-major, its first dimension the batch where the signature says -1."""

Tensors = Mapping[str, Array]
"""Tensors by name."""

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
"""A model, endpoint or version name; ASCII, safe in a path, a header, a log line. `..` is refused beside it."""

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""The Open Inference Protocol's datatypes (inference_rest.md, "Tensor Data Types"). BYTES holds `bytes` objects."""


class Surface(StrEnum):
    """The forms in which a prediction can be asked for; stored with each record."""

    OIP = "oip"
    PREDICTIONS = "predictions"
    TFSERVING = "tfserving"
    INVOCATIONS = "invocations"


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output of a model. `shape` counts elements per dimension, -1 where it varies; the first
    dimension is the batch if it is -1. `columns` names the features along the last dimension, `labels` the
    classes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True):
    """What a version takes and gives, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class OutputRequest(msgspec.Struct, frozen=True):
    """One output that a caller asked for; `binary` None means: as the request's default says. `classes` above 0 asks
    for that many classes with the highest scores instead of the output itself (Triton's classification extension)."""

    name: str
    binary: bool | None = None
    classes: int = 0


class ItemError(msgspec.Struct, frozen=True):
    """Why one item of a batch was refused; its neighbours are not hurt."""

    code: str
    message: str
    detail: Mapping[str, Any]


class DecodedRequest(msgspec.Struct, frozen=True):
    """A request as tensors.

    `rows` is the shared first dimension of all inputs, or 0 where they have none in common (then never batched).
    `outputs` empty means all. `binary` is the request's default for output encoding. `client_id` is the caller's
    own id, echoed. `items` has one entry per item of a predictions request: the row it became, or its error.
    `columnar`: the request came in columns and is answered so (TensorFlow Serving).
    """

    inputs: dict[str, Array]
    rows: int
    client_id: str | None = None
    outputs: tuple[OutputRequest, ...] = ()
    binary: bool = False
    raw_binary: bool = False
    items: tuple[int | ItemError, ...] = ()
    subject: str | None = None
    columnar: bool = False


class RawRequest(msgspec.Struct, frozen=True):
    """A request's body as it came, after Content-Encoding was undone, and what is needed to read it.

    `header_length` is the text of `Inference-Header-Content-Length`, or None.
    """

    body: bytes
    content_type: bytes | None = None
    header_length: bytes | None = None


class EncodedAnswer(msgspec.Struct, frozen=True):
    """An answer's body. `header_length` is the JSON part's length if binary tensors follow it."""

    body: bytes
    header_length: int | None = None


class AnswerContext(msgspec.Struct, frozen=True):
    """What an answer says beside the tensors."""

    model: str
    version: str
    prediction_id: str
    signature: Signature


class CodecBounds(msgspec.Struct, frozen=True):
    """How much a body may ask of the decoder."""

    max_json_depth: int = 100
    max_json_values: int = 1_000_000
    max_items: int = 100


class SurfaceCodec(Protocol):
    """Bytes to tensors and back, for one surface. Raises InvalidRequestError that names the field. Stateless
    towards callers: an old body never shows in a later answer."""

    def decode(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """The request as tensors that fit the signature."""

    def encode(self, request: DecodedRequest, outputs: Tensors, context: AnswerContext) -> EncodedAnswer:
        """The answer for this request; `outputs` holds this request's own rows only, every output of the model."""


class TurnCodec(SurfaceCodec, Protocol):
    """A codec that can take the usual requests of one turn of the loop together, with the same results."""

    def decode_turn(
        self,
        bodies: Sequence[bytes],
        signature: Signature,
        bounds: CodecBounds,
        content_type: bytes | None = None,
    ) -> list[Any]:
        """One DecodedRequest per body, all of this content type, or None where `decode` must look; never raises."""

    def encode_turn(
        self, requests: Sequence[DecodedRequest], outputs: Tensors, ids: Sequence[bytes], context: AnswerContext
    ) -> list[bytes] | None:
        """The bodies of their answers, if none asked for anything unusual; `outputs` holds the rows of all requests,
        `ids` their prediction ids, which take the place of the context's."""


class LoadedModel(Protocol):
    """A version in memory. `run` may be called from any one thread at a time and never keeps its arguments."""

    @property
    def signature(self) -> Signature:
        """As read from the model, completed by the manifest."""

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, Array]:
        """The named outputs (all, if empty) for the inputs. Raises ModelError("model_failed")."""

    def compact(self, inputs: Tensors) -> None:
        """Runs once more, and gives back what larger runs reserved; nothing where the library keeps nothing."""

    def close(self) -> None:
        """Frees the model; a second call does nothing."""


class LoadProfile(msgspec.Struct, frozen=True):
    """What the load check measured, on the machine that loaded it.

    `batched`: rows answered together equal rows answered alone (docs: hot path contract). `in_loop`: a batch of
    `max_loop_rows` rows runs within the bound, so it may run on the event loop. `run_us_1` and `run_us_32`: one run
    of 1 and of 32 rows, median, microseconds.
    """

    batched: bool
    in_loop: bool
    run_us_1: float
    run_us_32: float


class Servable(msgspec.Struct, frozen=True):
    """A version that may be served: loaded, verified, warmed. `redaction` says what the log must not hold
    (core.redaction.policy_text), or "none"."""

    model: str
    version: str
    digest: str
    loaded: LoadedModel
    profile: LoadProfile
    redaction: str = "none"

    @property
    def signature(self) -> Signature:
        """The loaded model's signature."""
        return self.loaded.signature
