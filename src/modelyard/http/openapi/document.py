"""The OpenAPI 3.1 document: every declared route, every predict route, and the models that a caller may see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

import modelyard
from modelyard.auth.scopes import Scope
from modelyard.core.settings import Settings
from modelyard.core.types import Surface
from modelyard.http.openapi.operations import PREDICT_STATUSES, REFUSAL, SECURITY, WHY, secured
from modelyard.http.openapi.requests import request_example, request_schema
from modelyard.http.resource.answers import Refusal
from modelyard.http.wire import PREDICT_ROUTES, predict_target
from modelyard.models.ports import Version

Json = dict[str, Any]

ABOUT = (
    "From a trained model file to an audited production API.\n\n"
    "A key goes into `x-api-key`, or `Authorization: Bearer`. Every error is "
    '`{"error", "code", "detail", "request_id"}`. `x-request-id` is on every answer.'
)
_VALIDATION = ("HTTPValidationError", "ValidationError")
_SUMMARY = {
    "oip": "Predict (Open Inference Protocol)",
    "predictions": "Predict named rows",
    "tfserving": "Predict (TensorFlow Serving)",
    "invocations": "Predict (SageMaker, MLflow)",
}


def general_document(routes: Sequence[BaseRoute], root_path: str) -> Json:
    """Everything but models: nothing in it needs a key to be known."""
    document = get_openapi(
        title="Modelyard",
        version=modelyard.__version__,
        openapi_version="3.1.0",
        description=ABOUT,
        routes=routes,
        servers=[{"url": root_path or "/"}],
    )
    _drop_foreign_validation(document)
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY
    components.setdefault("schemas", {})["Refusal"] = Refusal.model_json_schema()
    document["paths"] |= {path: {"post": _general_predict(path)} for path in PREDICT_ROUTES}
    return document


def with_models(document: Json, served: Iterable[tuple[str, Version]], settings: Settings) -> Json:
    """The document with the predict routes of these endpoints, each by its own name."""
    paths = dict(document["paths"])
    for name, version in served:
        own = model_paths(name, version, settings)
        paths |= {path: item for path, item in own if path not in PREDICT_ROUTES}
    return document | {"paths": paths}


def model_document(name: str, version: Version, settings: Settings, root_path: str) -> Json:
    """One endpoint's own document: how to ask it, as its version with the most traffic wants it."""
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{name} at Modelyard", "version": version.version, "description": ABOUT},
        "servers": [{"url": root_path or "/"}],
        "paths": dict(model_paths(name, version, settings)),
        "components": {"securitySchemes": SECURITY, "schemas": {"Refusal": Refusal.model_json_schema()}},
    }


def model_paths(name: str, version: Version, settings: Settings) -> Iterator[tuple[str, Json]]:
    """The unversioned predict routes of an endpoint, each with its request's schema and an example."""
    for template in PREDICT_ROUTES:
        path = template.replace("{model}", name)
        target = predict_target(path)
        if target is None or "{" in path:
            continue
        schema = request_schema(target.surface, version.manifest.signature, settings.codec.max_items)
        example = request_example(target.surface, version)
        if schema is not None and example is not None:
            operation = _model_predict(name, target.surface, version, schema, example)
            # A path that does not name the model is told which by its query.
            yield path, {"post": operation | ({"parameters": [_asked_model(name)]} if path == template else {})}


def _asked_model(name: str | None) -> Json:
    schema: Json = {"type": "string"} if name is None else {"const": name}
    return {"name": "model", "in": "query", "required": name is not None, "schema": schema}


def _model_predict(name: str, surface: Surface, version: Version, schema: Json, example: Json) -> Json:
    outputs = ", ".join(f"`{spec.name}`" for spec in version.manifest.signature.outputs)
    return _predict(
        surface,
        operation=f"{surface.value}_{name}",
        tag=name,
        summary=f"{_SUMMARY[surface.value]}: {name}",
        description=f"Version {version.version} has the most traffic; it gives {outputs}.",
        body={"schema": schema, "examples": {"one row": {"value": example}}},
    )


def _general_predict(path: str) -> Json:
    target = predict_target(path.replace("{", "").replace("}", ""))
    assert target is not None, path
    operation = _predict(
        target.surface,
        operation=f"{target.surface.value}_predict{'_version' if '{version}' in path else ''}",
        tag="predict",
        summary=_SUMMARY[target.surface.value],
        description="`/v1/models/{model}/openapi.json` has a model's own schema and a working example.",
        body={"schema": {"type": "object"}},
    )
    names = [name for name in ("model", "version") if f"{{{name}}}" in path]
    operation["parameters"] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ] or [_asked_model(None)]
    return operation


def _predict(surface: Surface, operation: str, tag: str, summary: str, description: str, body: Json) -> Json:
    answer = _ANSWERS.get(surface, {"type": "object"})
    good = {
        "description": WHY[200],
        "headers": _PREDICT_HEADERS,
        "content": {"application/json": {"schema": answer}},
    }
    return {
        "operationId": operation,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "security": secured(Scope.PREDICT),
        "x-modelyard-scope": str(Scope.PREDICT),
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": good,
            **{str(status): {"description": WHY[status], "content": REFUSAL} for status in sorted(PREDICT_STATUSES)},
        },
    }


_PREDICT_HEADERS: Json = {
    name: {"schema": {"type": "string"}} for name in ("x-prediction-id", "x-model-version", "x-request-id")
}
_ANSWERS: dict[Surface, Json] = {
    Surface.OIP: {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": {"type": "string"},
                        "datatype": {"type": "string"},
                        "shape": {"type": "array", "items": {"type": "integer"}},
                        "data": {"type": "array"},
                    },
                },
            },
        },
    },
    Surface.TFSERVING: {
        "type": "object",
        "minProperties": 1,
        "properties": {"predictions": {"type": "array"}, "outputs": {}},
    },
    Surface.INVOCATIONS: {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array"}},
    },
    Surface.PREDICTIONS: {
        "type": "object",
        "required": ["prediction_id", "model", "version", "results"],
        "properties": {
            "prediction_id": {"type": "string"},
            "model": {"type": "string"},
            "version": {"type": "string"},
            "results": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index"],
                    "properties": {
                        "index": {"type": "integer"},
                        "output": {"type": "object"},
                        "error": {"type": "object", "required": ["code", "message"]},
                    },
                },
            },
        },
    },
}


def _drop_foreign_validation(document: Json) -> None:
    """FastAPI documents a 422 of its own form wherever there is something to validate; ours is the 400."""
    for item in document["paths"].values():
        for operation in item.values():
            said = operation.get("responses", {}).get("422", {})
            if "HTTPValidationError" in str(said):
                del operation["responses"]["422"]
    for name in _VALIDATION:
        document.get("components", {}).get("schemas", {}).pop(name, None)
