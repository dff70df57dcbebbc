"""What frameworks refuse, said in our error form: validation, unknown routes, wrong verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from modelyard.core.errors import (
    InternalError,
    InvalidRequestError,
    MediaTypeError,
    MethodError,
    ModelyardError,
    NotFoundError,
)
from modelyard.http.forms.asking import NAME_RULE

_CODES: Mapping[str, str] = {
    "missing": "field_missing",
    "extra_forbidden": "field_unknown",
    "json_invalid": "json_invalid",
    "name_invalid": "name_invalid",
}
"""Our code for pydantic's type of error; `*_type` and `*_parsing` are field_type, the rest parameter_invalid."""


def validation_refusal(error: RequestValidationError, body_fields: Sequence[str] = ()) -> ModelyardError:
    """The first thing that is wrong, named by its field. `body_fields`: the names that the body may have."""
    first = error.errors()[0]
    loc: Sequence[int | str] = first["loc"]
    if tuple(loc) == ("body",) and isinstance(first.get("input"), bytes):
        return MediaTypeError(
            "content_type_unsupported",
            "The body must be JSON, sent as `application/json`.",
            field="content-type",
            expected="application/json",
        )
    field = _field(loc)
    code = _code(first["type"])
    if code == "json_invalid":
        return InvalidRequestError(
            code, "The body is not JSON.", field="body", expected="a JSON object", got=_reason(first)
        )
    known = body_fields if len(loc) == 2 and loc[0] == "body" else ()
    detail: dict[str, Any] = {"field": field, "expected": _expected(code, first["msg"], known)}
    if code not in ("field_missing", "field_unknown"):
        detail["got"] = _shown(first.get("input"))
    return InvalidRequestError(code, _sentence(code, field, first["msg"]), **detail)


def http_refusal(error: HTTPException, method: str, path: str, allowed: Sequence[str]) -> ModelyardError:
    """What the router or the framework raised. `allowed`: the methods that the path has."""
    if error.status_code == 404:
        return NotFoundError("route_not_found", f"There is nothing at `{path[:200]}`.", field="path", got=path[:200])
    if error.status_code == 405:
        return MethodError(
            "method_not_allowed",
            f"`{method}` is not possible here.",
            field="method",
            expected=list(allowed),
            got=method,
        )
    if error.status_code == 400:
        return InvalidRequestError("json_invalid", "The body cannot be read as JSON.", field="body")
    return InternalError("internal", "Something broke on our side; the log has it under the request id.")


def _code(kind: str) -> str:
    if kind in _CODES:
        return _CODES[kind]
    return "field_type" if kind.endswith(("_type", "_parsing", "_from_float")) else "parameter_invalid"


def _field(loc: Sequence[int | str]) -> str:
    """`("body", "scopes", 0)` as `scopes[0]`; the body itself as `body`."""
    parts = loc[1:] if len(loc) > 1 else loc
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _sentence(code: str, field: str, message: str) -> str:
    if code == "field_missing":
        return f"The field `{field}` is missing."
    if code == "field_unknown":
        return f"There is no field `{field[:80]}` here."
    return f"`{field[:80]}` is wrong: {message[:1].lower()}{message[1:]}."


def _expected(code: str, message: str, known: Sequence[str]) -> str | list[str]:
    if code == "name_invalid":
        return NAME_RULE
    if code == "field_unknown" and known:
        return list(known)
    return {"field_missing": "a value", "field_unknown": "only the documented fields"}.get(code, message)


def _reason(first: Mapping[str, Any]) -> str:
    return str((first.get("ctx") or {}).get("error", ""))[:200]


def _shown(value: object) -> Any:
    """What came, short: a value that is not a short text or a number is named by its type."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return value[:200] if isinstance(value, str) else type(value).__name__
