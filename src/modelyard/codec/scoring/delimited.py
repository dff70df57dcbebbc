"""CSV (RFC 4180) and NumPy's array file as the bodies of `/invocations`.

CSV: one row per line, UTF-8. The first line is a header if it names every column of the model, or, where the model's
input is numeric and has no column names, if it holds a cell that is no number. The content type's parameter
`header=present` or `header=absent` (RFC 4180, section 3) decides where a guess could be wrong.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.lib import format as npy

from modelyard.codec.json_strict import printable
from modelyard.codec.oip_request import fits
from modelyard.codec.scoring.parts import Part, batch_empty, read_table
from modelyard.codec.signature_plan import SignaturePlan
from modelyard.codec.tensors import bad_size, limits
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import DATATYPES, Array, CodecBounds, TensorSpec

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_WORDS = {"true": True, "false": False}


def read_csv(body: bytes, header: str | None, plan: SignaturePlan, bounds: CodecBounds) -> list[Part]:
    """The body's table. `header` is "present", "absent" or None (see above).

    Raises csv_invalid, json_too_many_values (the bound is the same), batch_empty and what `read_table` raises.
    """
    lines = _lines(body, bounds)
    if not lines:
        batch_empty("body")
    named = header == "present" or (header is None and _is_header(lines[0], plan))
    names = [cell.strip() for cell in lines[0]] if named else None
    rows = lines[1:] if named else lines
    kinds = _datatypes(names, plan)
    return read_table(names, [_row(row, kinds) for row in rows], plan, "csv")


def _lines(body: bytes, bounds: CodecBounds) -> list[list[str]]:
    if body.count(b",") + body.count(b"\n") >= bounds.max_json_values:
        raise InvalidRequestError(
            "json_too_many_values",
            f"The CSV has more than {bounds.max_json_values} values.",
            field="body",
            expected=f"at most {bounds.max_json_values} values (codec.max_json_values)",
            got="more",
        )
    try:
        text = body.decode("utf-8-sig")
        return [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except UnicodeDecodeError as error:
        _bad_csv(f"it is not UTF-8 at byte {error.start}")
    except csv.Error as error:
        _bad_csv(str(error))


def _bad_csv(reason: str) -> NoReturn:
    raise InvalidRequestError(
        "csv_invalid", f"The body is not valid CSV: {reason}.", field="body", expected="CSV as in RFC 4180", got=reason
    ) from None


def _is_header(cells: list[str], plan: SignaturePlan) -> bool:
    names = plan.columns or tuple(plan.inputs)
    if set(names) <= {cell.strip() for cell in cells}:
        return True
    numeric = all(spec.datatype not in ("BYTES", "BOOL") for spec in plan.signature.inputs)
    return numeric and any(not _NUMBER.fullmatch(cell.strip()) for cell in cells)


def _datatypes(names: Sequence[str] | None, plan: SignaturePlan) -> list[str]:
    """The datatype of each cell of a line; for cells that the model does not know, that of text."""
    specs = plan.signature.inputs
    if len(specs) == 1:
        return [specs[0].datatype]
    if names is None:
        return [spec.datatype for spec in specs]
    return [plan.inputs[name].datatype if name in plan.inputs else "BYTES" for name in names]


def _row(cells: list[str], kinds: list[str]) -> list[Any]:
    if len(kinds) == 1:
        kind = kinds[0]
        return [_cell(cell, kind) for cell in cells]
    if len(cells) != len(kinds):
        return list(cells)  # refused for its length, with its place
    return [_cell(cell, kind) for cell, kind in zip(cells, kinds, strict=True)]


def _cell(text: str, datatype: str) -> Any:
    """The cell's value; text that is none of the datatype stays text, which is then refused with its place."""
    if datatype == "BYTES":
        return text
    text = text.strip()
    if datatype == "BOOL" and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and DATATYPES[datatype].kind == "f":
        return float(text)
    return text


def read_npy(body: bytes, plan: SignaturePlan) -> list[Part]:
    """The only input as NumPy's file (numpy.lib.format, versions 1 and 2); never a pickle.

    Raises npy_invalid, datatype_mismatch, shape_mismatch, binary_size_mismatch, value_out_of_range, batch_empty.
    """
    if len(plan.inputs) != 1:
        _bad_npy("a model with one input", f"{len(plan.inputs)} inputs")
    (spec,) = plan.signature.inputs
    array = _array(body)
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] in (1, -1):
        array = array.reshape(-1, 1)
    if not fits(array.shape, spec.shape):
        raise InvalidRequestError(
            "shape_mismatch",
            f"The array does not have the shape of the model's input {printable(spec.name)}.",
            field="body",
            expected=list(spec.shape),
            got=list(array.shape),
        )
    if spec.shape and array.shape[0] == 0:
        batch_empty("body")
    return [Part(spec, array.shape, _cast(array, spec), "body")]


def _array(body: bytes) -> Array:
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version}")
    except Exception:  # it evaluates a literal, which fails in many ways
        _bad_npy("a NumPy array file of version 1 or 2", "something else")
    if dtype.hasobject or dtype.kind not in "biuf" or dtype.itemsize > 8:
        _bad_npy("numbers or booleans", str(dtype)[:80])
    start, wanted = stream.tell(), math.prod(shape) * dtype.itemsize
    if wanted != len(body) - start:
        bad_size("body", f"{wanted} bytes after the header", len(body) - start)
    return np.frombuffer(body, dtype=dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def _cast(array: Array, spec: TensorSpec) -> Array:
    """The array in the input's datatype. Whole numbers may become floats, nothing else changes its kind."""
    wanted = DATATYPES[spec.datatype]
    kind = array.dtype.kind
    if kind not in {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}.get(wanted.kind, ""):
        raise InvalidRequestError(
            "datatype_mismatch",
            "The array's datatype is not the model's.",
            field="body",
            expected=spec.datatype,
            got=str(array.dtype),
        )
    if kind != "b" and array.size:
        low, high = limits(spec.datatype)
        finite = array[np.isfinite(array)]
        if finite.size and (finite.min() < low or finite.max() > high):
            raise InvalidRequestError(
                "value_out_of_range",
                f"The array holds a value outside the range of {spec.datatype}.",
                field="body",
                expected=f"{spec.datatype}: {low} to {high}",
                got=str(array.dtype),
            )
    return np.array(array, dtype=wanted, order="C")


def _bad_npy(expected: str, got: str) -> NoReturn:
    raise InvalidRequestError(
        "npy_invalid", f"The body must be {expected}.", field="body", expected=expected, got=got
    ) from None
