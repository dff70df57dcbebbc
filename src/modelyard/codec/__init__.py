"""Bytes to tensors and back; used by http, aws and the drain alike.

`CODECS` has one codec per surface; `compression` undoes and applies Content-Encoding; `log.decode_for_log` makes the
JSON values of a prediction record from the bytes that were spooled.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.codec.oip import OipCodec
from modelyard.codec.rows import PredictionsCodec
from modelyard.codec.scoring.invocations import InvocationsCodec
from modelyard.codec.scoring.tfserving import TfServingCodec
from modelyard.core.types import Surface, SurfaceCodec

CODECS: Mapping[Surface, SurfaceCodec] = {
    Surface.OIP: OipCodec(),
    Surface.PREDICTIONS: PredictionsCodec(),
    Surface.TFSERVING: TfServingCodec(),
    Surface.INVOCATIONS: InvocationsCodec(),
}
"""The codec of each surface."""
