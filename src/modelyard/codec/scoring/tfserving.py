"""TensorFlow Serving's predict requests (tensorflow.org/tfx/serving/api_rest, "Predict API").

`{"signature_name"?: "serving_default", "instances": […]}` in rows, or `"inputs"` in columns. Named inputs are
objects; a model with one input takes its values without a name, and, where the signature names its columns, by
column. `"subject"` names whom the prediction is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard.codec.json_strict import parse, printable
from modelyard.codec.oip_request import read_subject
from modelyard.codec.scoring.answers import in_columns, in_rows, require_rows
from modelyard.codec.scoring.parts import Part, read_columns, read_rows, to_request, whole, wrong_type
from modelyard.codec.scoring.quick import quick_rows
from modelyard.codec.signature_plan import SignaturePlan, plan_of
from modelyard.codec.tensors import shown
from modelyard.codec.together.answers import scores_together
from modelyard.codec.together.codec import LearningCodec
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import (
    AnswerContext,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    RawRequest,
    Signature,
    Surface,
    Tensors,
)

_KNOWN = frozenset(("instances", "inputs", "signature_name", "subject"))
_FORMS = ("instances", "inputs")
_SIGNATURE = "serving_default"
_EXAMPLE = {"instances": [[0.5, 1.5]]}


class TfServingCodec(LearningCodec):
    """Rows or columns to tensors and back for `/v1/models/{name}:predict`. Stateless."""

    def read(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """The request as tensors that fit the signature. Raises InvalidRequestError, naming the field."""
        plan = plan_of(signature)
        quick = quick_rows(raw.body, plan, bounds)
        if quick is not None and quick[0] in _FORMS:
            if quick[0] == "instances":
                require_rows(signature)
            return whole(plan, quick[1], columnar=quick[0] == "inputs")
        document = _read(raw, bounds)
        if "instances" in document:
            require_rows(signature)
        subject = read_subject(document.get("subject"), "subject")
        return to_request(_parts(document, plan), plan, subject, "inputs" in document)

    def forms_of(self, content_type: bytes | None, signature: Signature) -> Any:
        """All bodies are JSON."""
        return Surface.TFSERVING

    def encode(self, request: DecodedRequest, outputs: Tensors, context: AnswerContext) -> EncodedAnswer:
        """`predictions` for rows, `outputs` for columns."""
        write = in_columns if request.columnar else in_rows
        return EncodedAnswer(write(outputs, context.signature))

    def encode_turn(
        self, requests: Sequence[DecodedRequest], outputs: Tensors, ids: Sequence[bytes], context: AnswerContext
    ) -> list[bytes] | None:
        """See TurnCodec."""
        return scores_together(requests, outputs, context.signature)


def tfserving_parts(raw: RawRequest, signature: Signature, bounds: CodecBounds) -> list[Part]:
    """The inputs in the values that were sent, for the log."""
    return _parts(_read(raw, bounds), plan_of(signature))


def _parts(document: dict[str, Any], plan: SignaturePlan) -> list[Part]:
    if "instances" in document:
        return read_rows(document["instances"], plan, "instances")
    return read_columns(document["inputs"], plan, "inputs")


def _read(raw: RawRequest, bounds: CodecBounds) -> dict[str, Any]:
    document = parse(raw.body, bounds, keep_constants=True)
    if type(document) is not dict:
        wrong_type("body", "an object with instances or inputs", document, _EXAMPLE)
    for key in document:
        if key not in _KNOWN:
            raise InvalidRequestError(
                "field_unknown",
                f"{printable(key)} is not a field of a predict request.",
                field=printable(key),
                expected=sorted(_KNOWN),
                got=printable(key),
                example=_EXAMPLE,
            )
    name = document.get("signature_name", _SIGNATURE)
    if name != _SIGNATURE:
        raise InvalidRequestError(
            "parameter_invalid",
            f"A model has one signature here, `{_SIGNATURE}`.",
            field="signature_name",
            expected=_SIGNATURE,
            got=shown(name),
            example=_SIGNATURE,
        )
    require_one_of(document, _FORMS, _EXAMPLE)
    return document


def require_one_of(document: dict[str, Any], forms: tuple[str, ...], example: Any) -> str:
    """The one of these keys that the document has. Raises field_missing for none, parameter_invalid for two."""
    found = [form for form in forms if form in document]
    if len(found) == 1:
        return found[0]
    words = ", ".join(forms)
    code = "parameter_invalid" if found else "field_missing"
    raise InvalidRequestError(
        code, f"The request needs exactly one of {words}.", field=found[-1] if found else forms[0],
        expected=f"exactly one of {words}", got=found or None, example=example,
    )  # fmt: skip
