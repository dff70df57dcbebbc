"""From JSON values in rows, in columns or as a table to the model's inputs.

A `Part` is one input of the model, still in the values that were sent: the codecs make a tensor of it, the log keeps
the numbers as they stood there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import numpy as np

from modelyard.codec.json_strict import printable
from modelyard.codec.oip_request import fits, shared_rows
from modelyard.codec.signature_plan import SignaturePlan
from modelyard.codec.tensors import flatten, from_values, shown
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import Array, DecodedRequest, TensorSpec


class Part(NamedTuple):
    """One input: its shape, and its values flat in row-major order (or an array that came in binary). `width` is how
    many values the caller wrote in one row, so that a refusal can name row and place."""

    spec: TensorSpec
    shape: tuple[int, ...]
    values: Any
    field: str
    width: int = 1


def to_request(
    parts: Iterable[Part], plan: SignaturePlan, subject: str | None = None, columnar: bool = False
) -> DecodedRequest:
    """The parts as tensors. Raises value_invalid, value_out_of_range and names the value's place."""
    inputs = {part.spec.name: _tensor(part) for part in parts}
    return DecodedRequest(inputs, shared_rows(inputs, plan), subject=subject, columnar=columnar)


def whole(plan: SignaturePlan, array: Array, columnar: bool = False) -> DecodedRequest:
    """A request that is the only input's tensor and nothing else."""
    return DecodedRequest({plan.signature.inputs[0].name: array}, len(array), columnar=columnar)


def _tensor(part: Part) -> Array:
    if isinstance(part.values, np.ndarray):
        return part.values
    spec = part.spec
    if spec.datatype == "BYTES" and any(type(value) is bytes for value in part.values):
        return _from_bytes(part)
    try:
        return from_values(part.values, spec.datatype, part.field).reshape(part.shape)
    except InvalidRequestError:
        width = max(1, part.width)
        for row, start in enumerate(range(0, len(part.values), width)):
            values = part.values[start : start + width]
            from_values(values, spec.datatype, f"{part.field}[{row}]")
        raise


def _from_bytes(part: Part) -> Array:
    """BYTES of which some came in base64."""
    result = np.empty(len(part.values), dtype=np.object_)
    for index, value in enumerate(part.values):
        place = f"{part.field}[{index}]"
        result[index] = value if type(value) is bytes else from_values((value,), "BYTES", place)[0]
    return result.reshape(part.shape)


def read_rows(rows: Any, plan: SignaturePlan, field: str) -> list[Part]:
    """`instances`: one entry per row; an object by input or column name, or the only input's value.

    Raises field_type, field_missing, field_unknown, batch_empty, shape_mismatch, element_count_mismatch.
    """
    if type(rows) is not list:
        wrong_type(field, "a list of rows", rows, [[0.5, 1.5]])
    if not rows:
        batch_empty(field)
    if any(type(row) is dict and not _is_base64(row, plan) for row in rows):
        return read_records(rows, plan, field, strict=True)
    return [natural(rows, _only(plan, field), field)]


def read_columns(columns: Any, plan: SignaturePlan, field: str) -> list[Part]:
    """`inputs`: an object with each input's (or each column's) values of all rows, or the only input's values.

    Raises as `read_rows`.
    """
    if type(columns) is not dict:
        return [natural(columns, _only(plan, field), field)]
    if not plan.columns or plan.inputs.keys() <= columns.keys():
        check_names(columns, tuple(plan.inputs), field, strict=True)
        return [natural(columns[name], spec, f"{field}.{name}") for name, spec in plan.inputs.items()]
    check_names(columns, plan.columns, field, strict=True)
    return [_transposed(columns, plan, field)]


def read_records(rows: list[Any], plan: SignaturePlan, field: str, *, strict: bool) -> list[Part]:
    """Rows as objects by name. `strict`: a name that the model does not have is refused, else it is left out."""
    for index, row in enumerate(rows):
        if type(row) is not dict:
            wrong_type(f"{field}[{index}]", "an object", row, {})
    names = _names_for(rows[0].keys(), plan)
    by_position = names is None and bool(rows[0])
    if names is None:
        names = tuple(rows[0]) or tuple(plan.inputs)
    for index, row in enumerate(rows):
        if len(row) != len(names) or any(name not in row for name in names):
            check_names(row, names, f"{field}[{index}]", strict=strict or by_position)
    if names != tuple(plan.inputs):
        return [_matrix([[row[name] for name in names] for row in rows], plan, field)]
    return [natural([row[name] for row in rows], spec, f"{field}.{name}") for name, spec in plan.inputs.items()]


def read_table(
    names: Sequence[str] | None, rows: Sequence[Sequence[Any]], plan: SignaturePlan, field: str
) -> list[Part]:
    """Rows in the order of `names`, or of the model where there are none; names that the model does not have are left
    out (as MLflow's schema enforcement does). Every row must have one value for each name."""
    if not rows:
        batch_empty(field)
    wanted = None if names is None else _names_for(names, plan)
    width = len(names) if names is not None else len(rows[0])
    _check_width(rows, width, field)
    if names is None or wanted is None:
        return _by_position(rows, plan, field)
    place_of = {name: place for place, name in enumerate(names)}
    check_names(place_of, wanted, field, strict=False)
    places = [place_of[name] for name in wanted]
    if wanted == tuple(plan.inputs):
        return [
            natural([row[place] for row in rows], spec, f"{field}.{name}")
            for place, (name, spec) in zip(places, plan.inputs.items(), strict=True)
        ]
    return [_matrix([[row[place] for place in places] for row in rows], plan, field)]


def _by_position(rows: Sequence[Sequence[Any]], plan: SignaturePlan, field: str) -> list[Part]:
    if len(plan.inputs) == 1:
        return [_matrix(rows, plan, field)]
    specs = list(plan.inputs.values())
    if len(rows[0]) != len(specs):
        _bad_shape(field, [len(specs)], [len(rows[0])], specs[0].name)
    return [natural([row[place] for row in rows], spec, f"{field}.{spec.name}") for place, spec in enumerate(specs)]


def _names_for(names: Iterable[str], plan: SignaturePlan) -> tuple[str, ...] | None:
    """The names to look for: the model's columns or its inputs; None where it has no names that could match, so that
    only the order counts."""
    given = set(names)
    inputs = tuple(plan.inputs)
    if plan.columns and not (given.issuperset(inputs) and not given.issuperset(plan.columns)):
        return plan.columns
    if len(inputs) == 1 and inputs[0] not in given and len(plan.signature.inputs[0].shape) == 2:
        return None
    return inputs


def _matrix(rows: Sequence[Sequence[Any]], plan: SignaturePlan, field: str) -> Part:
    """Rows of single values for the only input."""
    (spec,) = plan.signature.inputs
    width = len(rows[0])
    shape: tuple[int, ...] = (len(rows), width)
    if width == 1 and len(spec.shape) != 2:
        return natural([row[0] for row in rows], spec, field)
    if not fits(shape, spec.shape):
        _bad_shape(field, list(spec.shape), list(shape), spec.name)
    return Part(spec, shape, _leaves(list(chain.from_iterable(rows)), spec, field), field, width)


def _transposed(columns: dict[str, Any], plan: SignaturePlan, field: str) -> Part:
    (spec,) = plan.signature.inputs
    lists: list[list[Any]] = []
    for name in plan.columns:
        values = columns[name]
        if type(values) is not list:
            wrong_type(f"{field}.{printable(name)}", "a list of values", values, [0.5])
        if values and all(type(value) is list and len(value) == 1 for value in values):
            values = [value[0] for value in values]
        if lists and len(values) != len(lists[0]):
            place = f"{field}.{printable(name)}"
            raise InvalidRequestError(
                "element_count_mismatch",
                f"{place} does not have as many values as the columns before it.",
                field=place,
                expected=len(lists[0]),
                got=len(values),
            )
        lists.append(values)
    if not lists[0]:
        batch_empty(field)
    flat = list(chain.from_iterable(zip(*lists, strict=True)))
    return Part(spec, (len(lists[0]), len(lists)), _leaves(flat, spec, field), field, len(lists))


def natural(value: Any, spec: TensorSpec, field: str) -> Part:
    """Nested lists in their own shape, which must be the input's; a list of bare values where a row has one element.

    Raises field_type, batch_empty, shape_mismatch, element_count_mismatch.
    """
    if type(value) is not list:
        wrong_type(field, "a list", value, [0.5])
    if not value:
        batch_empty(field)
    dims: list[int] = []
    level: Any = value
    while type(level) is list:
        dims.append(len(level))
        level = level[0] if level else None
    shape = tuple(dims)
    if len(shape) == 1 and len(spec.shape) > 1 and all(dim in (1, -1) for dim in spec.shape[1:]):
        shape += (1,) * (len(spec.shape) - 1)
    if not fits(shape, spec.shape):
        _bad_shape(field, list(spec.shape), list(shape), spec.name)
    flat = flatten(value, shape, field)
    return Part(spec, shape, _leaves(flat, spec, field), field, len(flat) // len(value))


def _leaves(flat: list[Any], spec: TensorSpec, field: str) -> list[Any]:
    """The values with `{"b64": "…"}` of a BYTES input decoded."""
    if spec.datatype != "BYTES" or not any(type(value) is dict for value in flat):
        return flat
    return [_decoded(value, f"{field}[{index}]") if type(value) is dict else value for index, value in enumerate(flat)]


def _decoded(value: dict[str, Any], field: str) -> bytes:
    text: Any = value.get("b64")
    try:
        if len(value) == 1 and type(text) is str:
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError(
        "value_invalid",
        f'{field} must be text or {{"b64": "…"}} with valid base64.',
        field=field,
        expected='text, or {"b64": base64}',
        got="an object",
        example={"b64": "aGVsbG8="},
    )


def _is_base64(row: dict[str, Any], plan: SignaturePlan) -> bool:
    return row.keys() == {"b64"} and "b64" not in plan.inputs and "b64" not in plan.column_names


def _only(plan: SignaturePlan, field: str) -> TensorSpec:
    if len(plan.inputs) == 1:
        return plan.signature.inputs[0]
    raise InvalidRequestError(
        "field_type",
        f"{field}: this model has {len(plan.inputs)} inputs; name each.",
        field=field,
        expected=list(plan.inputs),
        got="values without a name",
    )


def check_names(given: dict[str, Any], wanted: Sequence[str], field: str, *, strict: bool) -> None:
    """Refuses a missing name (field_missing) and, if `strict`, an unknown one (field_unknown)."""
    for name in wanted:
        if name not in given:
            place = f"{field}.{printable(name)}"
            raise InvalidRequestError(
                "field_missing", f"{place} is missing.", field=place, expected=list(wanted[:100]), got=None
            )
    if not strict:
        return
    known = frozenset(wanted)
    for name in given:
        if name not in known:
            place = f"{field}.{printable(name)}"
            raise InvalidRequestError(
                "field_unknown",
                f"{place}: the model has no such feature.",
                field=place,
                expected=list(wanted[:100]),
                got=printable(name),
            )


def _check_width(rows: Sequence[Sequence[Any]], width: int, field: str) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, list | tuple):
            wrong_type(f"{field}[{index}]", "a list of values", row, [0.5, 1.5])
        if len(row) != width:
            raise InvalidRequestError(
                "element_count_mismatch",
                f"{field}[{index}] does not have {width} values.",
                field=f"{field}[{index}]",
                expected=width,
                got=len(row),
            )


def _bad_shape(field: str, expected: list[int], got: list[int], name: str) -> NoReturn:
    raise InvalidRequestError(
        "shape_mismatch",
        f"{field} does not have the shape of the model's input {printable(name)}.",
        field=field,
        expected=expected,
        got=got,
    )


def batch_empty(field: str) -> NoReturn:
    """Raises batch_empty: there is no row."""
    raise InvalidRequestError("batch_empty", f"{field} has no row.", field=field, expected="at least one row", got=0)


def wrong_type(field: str, expected: str, got: Any, example: Any) -> NoReturn:
    """Raises field_type."""
    raise InvalidRequestError(
        "field_type", f"{field} must be {expected}.", field=field, expected=expected, got=shown(got), example=example
    )
