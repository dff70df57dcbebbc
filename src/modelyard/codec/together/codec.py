"""A surface's codec that reads a turn's bodies of known forms together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from modelyard.codec.together.forms import decode_together
from modelyard.codec.together.learning import learn
from modelyard.core.types import CodecBounds, DecodedRequest, RawRequest, Signature


class LearningCodec(ABC):
    """core.types.TurnCodec's reading half, for surfaces that learn their forms. Stateless: forms are the plan's."""

    @abstractmethod
    def read(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """One request, the single way; see `decode`."""

    @abstractmethod
    def forms_of(self, content_type: bytes | None, signature: Signature) -> Any:
        """What the forms of such bodies are kept under; None where none are learned."""

    def decode(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """The request as tensors that fit the signature. Raises what `read` raises."""
        decoded = self.read(raw, signature, bounds)
        key = self.forms_of(raw.content_type, signature)
        if key is not None:
            learn(key, raw, decoded, signature, bounds, self.read)
        return decoded

    def decode_turn(
        self,
        bodies: Sequence[bytes],
        signature: Signature,
        bounds: CodecBounds,
        content_type: bytes | None = None,
    ) -> list[DecodedRequest | None]:
        """See TurnCodec: those of a known form."""
        return decode_together(self.forms_of(content_type, signature), bodies, signature, bounds)
