"""The answers of requests of one row each, written together: each output once, cut at the rows.

Byte by byte what the single way writes; None where an output is no table of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson

from modelyard.codec.oip_turn import cells_of
from modelyard.codec.scoring.answers import arrays_of
from modelyard.codec.signature_plan import plan_of, remember
from modelyard.core.types import AnswerContext, Array, DecodedRequest, Signature, Tensors

_NUMBERS = frozenset(("b1", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"))


def scores_together(requests: Sequence[DecodedRequest], outputs: Tensors, signature: Signature) -> list[bytes] | None:
    """`predictions`, or `outputs` for who asked in columns (scoring.answers)."""
    if any(request.rows != 1 for request in requests):
        return None
    arrays = [array for _, array in arrays_of(outputs, signature)]
    if not _are_tables(arrays, len(requests)):
        return None
    templates = {
        columnar: _scores_template(signature, arrays, columnar)
        for columnar in {request.columnar for request in requests}
    }
    rows = zip(*map(cells_of, arrays), strict=True)
    return [templates[request.columnar] % row for request, row in zip(requests, rows, strict=True)]


def results_together(
    outputs: Tensors, ids: Sequence[bytes], context: AnswerContext, labels: Callable[[], Sequence[str | None]]
) -> list[bytes] | None:
    """The answers of predictions requests of one good item each (rows). `labels` are the predicted classes' names, one
    per row; none where nothing tells them."""
    signature = context.signature
    arrays = [outputs[spec.name] for spec in signature.outputs if spec.name in outputs]
    key = label_key(signature)
    if len(arrays) != len(signature.outputs) or key in plan_of(signature).outputs or not _are_tables(arrays, len(ids)):
        return None
    arrays = [array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array for array in arrays]
    template = _results_template(context, arrays)
    shown = _shown_labels(key, labels()) or [b""] * len(ids)
    return [template % row for row in zip(ids, *map(cells_of, arrays), shown, strict=True)]


def label_key(signature: Signature) -> str:
    """What the predicted class is called in an item's output."""
    return "label_name" if any(spec.name == "label" for spec in signature.outputs) else "label"


def _are_tables(arrays: Sequence[Array], count: int) -> bool:
    return bool(arrays) and all(
        array.dtype.str[1:] in _NUMBERS and array.ndim in (1, 2) and len(array) == count for array in arrays
    )


def _shown_labels(key: str, labels: Sequence[str | None]) -> list[bytes]:
    opening = b"," + orjson.dumps(key) + b":"
    known = {label: b"" if label is None else opening + orjson.dumps(label) for label in set(labels)}
    return [known[label] for label in labels]


def _scores_template(signature: Signature, arrays: Sequence[Array], columnar: bool) -> bytes:
    templates, form = plan_of(signature).templates, ("scores", columnar, *[array.ndim for array in arrays])
    if form not in templates:
        names = [_escaped(spec.name) for spec in signature.outputs]
        cells = [b"[%b]" % _cell(array) if columnar else _cell(array) for array in arrays]
        if len(cells) == 1:
            whole = cells[0]
        else:
            whole = b"{%b}" % b",".join([b"%b:%b" % pair for pair in zip(names, cells, strict=True)])
        remember(templates, form, b'{"outputs":%b}' % whole if columnar else b'{"predictions":[%b]}' % whole)
    return templates[form]


def _results_template(context: AnswerContext, arrays: Sequence[Array]) -> bytes:
    templates = plan_of(context.signature).templates
    form = ("results", context.model, context.version, *[array.ndim for array in arrays])
    if form not in templates:
        cells = [
            b"%b:%b" % (_escaped(s.name), _cell(a)) for s, a in zip(context.signature.outputs, arrays, strict=True)
        ]
        remember(
            templates,
            form,
            b'{"prediction_id":"%%b","model":%b,"version":%b,"results":[{"index":0,"output":{%b%%b}}]}'
            % (_escaped(context.model), _escaped(context.version), b",".join(cells)),
        )
    return templates[form]


def _escaped(text: str) -> bytes:
    """As JSON that may stand in a template."""
    return orjson.dumps(text).replace(b"%", b"%%")


def _cell(array: Array) -> bytes:
    """Where a row of this output goes in a template."""
    return b"%b" if array.ndim == 1 else b"[%b]"
