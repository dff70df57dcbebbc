"""What FastAPI cannot know of a route: its scope, its refusals, its headers, the body of an upload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.auth.scopes import Scope
from modelyard.http.resource.answers import Refusal
from modelyard.http.resource.upload import FILE_TYPE, FILENAME_HEADER, FOLDER_TYPE
from modelyard.http.routes.gate import Declared, Needs

Json = dict[str, Any]

WHY: Mapping[int, str] = {
    200: "Done.",
    201: "Made.",
    202: "Taken; done later.",
    204: "Done; nothing to say.",
    304: "Not changed since `If-None-Match`.",
    400: "The request is wrong; `detail` names where.",
    401: "No key, or one that is not valid.",
    403: "The key may not do this.",
    404: "There is no such thing, or not for this key.",
    405: "Not with this verb.",
    408: "The body did not come in time.",
    409: "It is otherwise already.",
    412: "It was changed since `If-Match`.",
    413: "The body is too large.",
    415: "The body is in a form that is not spoken.",
    422: "The model is refused, or it contradicts an earlier request.",
    429: "Beyond the client's limits; `Retry-After` says how long.",
    431: "The headers are too large.",
    500: "The model failed, or something of ours did.",
    503: "Not now; `Retry-After` says how long.",
}
"""What a status means here."""

SECURITY: Json = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key, `mdy_…`."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key, as a bearer token."},
}
REFUSAL: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
GATE_STATUSES = (401, 403, 429, 503)
PREDICT_STATUSES = (400, *GATE_STATUSES, 404, 408, 413, 415, 500)


def statuses_of(declared: Declared, needs: Needs) -> list[int]:
    """The refusals of a route: those that follow from how it is declared, and those it names."""
    found = set(declared.answers.refusals) | set(declared.answers.others)
    if needs.scope is not None:
        found |= set(GATE_STATUSES)
    if declared.path.startswith("/v1/") or "{" in declared.path:
        found.add(400)
    if "{" in declared.path:
        found.add(404)
    if declared.method in ("POST", "PUT", "PATCH"):
        found |= {408, 413, 415}
    if declared.answers.guarded:
        found.add(412)
    return sorted(found)


def route_options(declared: Declared, needs: Needs) -> Json:
    """The options of FastAPI's `add_api_route` that document a declared route."""
    answers = declared.answers
    responses: dict[int | str, Json] = {status: _good(declared, status) for status in answers.statuses}
    if answers.tagged and declared.method == "GET":
        responses[304] = {"description": WHY[304]}
    for status in statuses_of(declared, needs):
        responses[status] = {"description": WHY[status], "model": answers.others.get(status, Refusal)}
    return {
        "responses": responses,
        "status_code": answers.statuses[0],
        "operation_id": declared.endpoint.__name__,
        "openapi_extra": _extra(declared, needs),
    }


def _good(declared: Declared, status: int) -> Json:
    said: Json = {"description": WHY[status]}
    if declared.answers.form is not None:
        said["model"] = declared.answers.form
    if declared.answers.media:
        said["content"] = {media: {"schema": {}} for media in declared.answers.media}
    if declared.answers.tagged:
        said["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "Names what was seen."}}
    return said


def _extra(declared: Declared, needs: Needs) -> Json:
    extra: Json = {"security": secured(needs.scope), "parameters": list(_headers(declared, needs))}
    if needs.scope is not None:
        extra["x-modelyard-scope"] = str(needs.scope)
    if needs.streams:
        binary = {"schema": {"type": "string", "format": "binary"}}
        extra["requestBody"] = {"required": True, "content": {FILE_TYPE: binary, FOLDER_TYPE: binary}}
    return extra


def secured(scope: Scope | None) -> list[Json]:
    """The security of an operation: one of the two places of a key, or none."""
    return [] if scope is None else [{"key": []}, {"bearer": []}]


def _headers(declared: Declared, needs: Needs) -> list[Json]:
    named: list[tuple[str, str]] = []
    if declared.answers.guarded:
        named.append(("If-Match", "The `ETag` that was seen; without it the last change wins."))
    if declared.answers.tagged and declared.method == "GET":
        named.append(("If-None-Match", "An `ETag`; 304 if it is still that."))
    if needs.streams:
        named.append((FILENAME_HEADER, "The file's name; its ending helps to tell the format."))
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in named
    ]
