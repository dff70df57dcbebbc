"""`POST /invocations`: the scoring contract of MLflow 2 and 3 and of SageMaker containers.

`application/json` (also where no content type is given): exactly one of `dataframe_split`, `dataframe_records`,
`instances`, `inputs`; `params` only if empty (a model here has none); `subject` as on every route. `text/csv` and
`application/x-npy`: see `delimited`. The answer is `{"predictions": […]}`, one entry per row. Columns that the model
does not have are left out of a data frame and of a CSV with a header, as MLflow's schema enforcement does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from modelyard.codec.json_strict import parse, printable
from modelyard.codec.oip_request import read_subject
from modelyard.codec.scoring.answers import in_rows
from modelyard.codec.scoring.delimited import read_csv, read_npy
from modelyard.codec.scoring.parts import (
    Part,
    batch_empty,
    read_columns,
    read_records,
    read_rows,
    read_table,
    to_request,
    whole,
    wrong_type,
)
from modelyard.codec.scoring.quick import quick_csv, quick_rows
from modelyard.codec.scoring.tfserving import require_one_of
from modelyard.codec.signature_plan import SignaturePlan, plan_of
from modelyard.codec.tensors import shown
from modelyard.codec.together.answers import scores_together
from modelyard.codec.together.codec import LearningCodec
from modelyard.core.errors import InvalidRequestError, MediaTypeError
from modelyard.core.types import (
    AnswerContext,
    Array,
    CodecBounds,
    DecodedRequest,
    EncodedAnswer,
    RawRequest,
    Signature,
    Surface,
    Tensors,
)

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_KNOWN = frozenset((*_FORMS, "params", "subject"))
_SPLIT_KEYS = frozenset(("columns", "data", "index"))
_EXAMPLE = {"dataframe_split": {"columns": ["age", "bmi"], "data": [[61, 24.5]]}}


class _Read(NamedTuple):
    parts: list[Part]
    subject: str | None = None


class InvocationsCodec(LearningCodec):
    """Data frames, rows, columns, CSV and NumPy arrays to tensors, `predictions` back. Stateless."""

    def read(self, raw: RawRequest, signature: Signature, bounds: CodecBounds) -> DecodedRequest:
        """The request as tensors that fit the signature. Raises InvalidRequestError, naming the field, and
        MediaTypeError("content_type_unsupported")."""
        plan = plan_of(signature)
        array = _quick(raw, plan, bounds)
        if array is not None:
            return whole(plan, array)
        read = _read(raw, plan, bounds)
        return to_request(read.parts, plan, read.subject)

    def forms_of(self, content_type: bytes | None, signature: Signature) -> Any:
        """Text alone is learned."""
        return (Surface.INVOCATIONS, content_type) if _is_text(content_type, plan_of(signature)) else None

    def encode(self, request: DecodedRequest, outputs: Tensors, context: AnswerContext) -> EncodedAnswer:
        """`predictions`, one entry per row."""
        return EncodedAnswer(in_rows(outputs, context.signature))

    def encode_turn(
        self, requests: Sequence[DecodedRequest], outputs: Tensors, ids: Sequence[bytes], context: AnswerContext
    ) -> list[bytes] | None:
        """See TurnCodec."""
        return scores_together(requests, outputs, context.signature)


def _is_text(content_type: bytes | None, plan: SignaturePlan) -> bool:
    """Whether the body is JSON, or CSV in which no row of numbers can be the header."""
    if content_type is None or content_type.startswith(b"application/json"):
        return True
    return content_type.startswith(b"text/csv") and not plan.numeric_names


def invocations_parts(raw: RawRequest, signature: Signature, bounds: CodecBounds) -> list[Part]:
    """The inputs in the values that were sent, for the log."""
    return _read(raw, plan_of(signature), bounds).parts


def _quick(raw: RawRequest, plan: SignaturePlan, bounds: CodecBounds) -> Array | None:
    """The only input's tensor of a usual request; None where the careful path must look."""
    if raw.content_type == b"text/csv":
        return quick_csv(raw.body, plan, bounds)
    if raw.content_type is not None and raw.content_type != b"application/json":
        return None
    quick = quick_rows(raw.body, plan, bounds)
    return None if quick is None else quick[1]


def _read(raw: RawRequest, plan: SignaturePlan, bounds: CodecBounds) -> _Read:
    kind = raw.content_type
    if kind is None or kind == b"application/json":
        return _read_json(raw.body, plan, bounds)
    name, parameters = _media_type(kind)
    if name == JSON:
        return _read_json(raw.body, plan, bounds)
    if name == CSV:
        return _Read(read_csv(raw.body, parameters.get("header"), plan, bounds))
    return _Read(read_npy(raw.body, plan))


def _media_type(content_type: bytes) -> tuple[str, dict[str, str]]:
    """Type and parameters, in lower case. Raises content_type_unsupported for others than are spoken here."""
    text = content_type.decode("latin-1").lower()
    name, *rest = (part.strip() for part in text.split(";"))
    parameters = {}
    for part in filter(None, rest):
        key, _, value = part.partition("=")
        parameters[key.strip()] = value.strip().strip('"')
    charset = parameters.pop("charset", "utf-8")
    header = parameters.get("header", "present")
    allowed = {"header"} if name == CSV else set()
    if (
        name not in (JSON, CSV, NPY)
        or charset not in ("utf-8", "utf8", "us-ascii")
        or header not in ("present", "absent")
        or not parameters.keys() <= allowed
    ):
        raise MediaTypeError(
            "content_type_unsupported",
            "The body must be JSON or CSV in UTF-8, or a NumPy array.",
            field="content-type",
            expected=[JSON, f"{CSV}; header=present|absent", NPY],
            got=printable(text),
            example=JSON,
        )
    return name, parameters


def _read_json(body: bytes, plan: SignaturePlan, bounds: CodecBounds) -> _Read:
    document = parse(body, bounds, keep_constants=True)
    if type(document) is not dict:
        wrong_type("body", f"an object with one of {', '.join(_FORMS)}", document, _EXAMPLE)
    for key in document:
        if key not in _KNOWN:
            _unknown(key, sorted(_KNOWN))
    if document.get("params"):
        raise InvalidRequestError(
            "parameter_invalid",
            "A model takes no params here.",
            field="params",
            expected="no params, or empty ones",
            got=shown(document["params"]),
        )
    form = require_one_of(document, _FORMS, _EXAMPLE)
    subject = read_subject(document.get("subject"), "subject")
    return _Read(_READERS[form](document[form], plan, form), subject)


def _read_split(frame: Any, plan: SignaturePlan, field: str) -> list[Part]:
    """pandas' orient "split": `columns` (names, may be left out), `index` (not looked at), `data` (rows)."""
    if type(frame) is not dict:
        wrong_type(field, "an object with columns and data", frame, _EXAMPLE[field])
    for key in frame:
        if key not in _SPLIT_KEYS:
            _unknown(f"{field}.{key}", sorted(_SPLIT_KEYS))
    if "data" not in frame:
        raise InvalidRequestError(
            "field_missing",
            f"{field}.data is missing.",
            field=f"{field}.data",
            expected="a list of rows",
            got=None,
            example=_EXAMPLE[field],
        )
    data = frame["data"]
    if type(data) is not list:
        wrong_type(f"{field}.data", "a list of rows", data, [[61, 24.5]])
    if data and type(data[0]) is not list:
        wrong_type(f"{field}.data[0]", "a list of values", data[0], [61, 24.5])
    return read_table(_names(frame.get("columns"), f"{field}.columns"), data, plan, f"{field}.data")


def _names(columns: Any, field: str) -> list[str] | None:
    if columns is None:
        return None
    if type(columns) is not list or not all(type(name) in (str, int) for name in columns):
        wrong_type(field, "a list of names", columns, ["age", "bmi"])
    names = [str(name) for name in columns]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequestError(
                "json_duplicate_key",
                f"{field} names a column twice.",
                field=field,
                expected="each column once",
                got=printable(name),
            )
        seen.add(name)
    return names


def _read_records(rows: Any, plan: SignaturePlan, field: str) -> list[Part]:
    """pandas' orient "records": a list of objects by column."""
    if type(rows) is not list:
        wrong_type(field, "a list of objects", rows, [{"age": 61}])
    if not rows:
        batch_empty(field)
    return read_records(rows, plan, field, strict=False)


def _unknown(field: str, expected: list[str]) -> NoReturn:
    raise InvalidRequestError(
        "field_unknown",
        f"{printable(field)} is not a field of a scoring request.",
        field=printable(field),
        expected=expected,
        got=printable(field),
        example=_EXAMPLE,
    )


_READERS = {
    "dataframe_split": _read_split,
    "dataframe_records": _read_records,
    "instances": read_rows,
    "inputs": read_columns,
}
