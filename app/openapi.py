"""What the OpenAPI document says beyond what the routes' signatures do: errors, keys, and bodies read by hand."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.schemas import Problem
from core.job_spec import JobSpec
from core.uploads import Announcement

_REFERENCE = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The Host header names another server.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks the scope.",
    404: "No such thing, or another owner's.",
    409: "Not possible in the present state.",
    408: "The body came too slowly.",
    413: "The body is over this server's limit.",
    415: "The body is not JSON.",
    416: "The range lies outside.",
    422: "The request cannot be used; `errors` says where and why.",
    429: "The key has as many streams open as one key may.",
    507: "The server's disk is full.",
    503: "The database, or another part, does not answer at the moment.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error answers of a route, besides those that every route with a key has."""
    content = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="Problem")}}}
    return {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted({400, 401, 403, 422, 503, *statuses})
    }


def json_request(model: str, **examples: Any) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads a JSON body by hand, with examples of such bodies by name."""
    shown = {name: {"value": value} for name, value in examples.items()}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(model), "examples": shown}},
        }
    }


def leads_to(parameter: str, *operations: str, in_body_of: str | None = None) -> dict[str, Any]:
    """Return the `links` of an answer: the operations that its id is a parameter of, or a part of the body of."""
    made = "$response.body#/id"
    links = {name: {"operationId": name, "parameters": {parameter: made}} for name in operations}
    if in_body_of:
        links[in_body_of] = {"operationId": in_body_of, "requestBody": {parameter: made}}
    return {"links": links}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
BINARY_REQUEST = {"requestBody": {"required": False, "content": {"application/octet-stream": _BINARY}}}


def file_request(example: str | None = None) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes a file, as the example is: in a form, or as the body."""
    form = {"type": "object", "required": ["file"], "properties": {"file": _BINARY["schema"]}}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}, "application/octet-stream": dict(_BINARY)}
    if example is not None:
        content["application/octet-stream"]["example"] = example
    return {"requestBody": {"required": True, "content": content}}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = made.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for model in (Problem, JobSpec, Announcement):
            schema = model.model_json_schema(ref_template=_REFERENCE)
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
        _set_whole_defaults_apart(schemas)
        app.openapi_schema = made
    return app.openapi_schema


def _set_whole_defaults_apart(schema: Any) -> None:
    """Call a default that is an object `x-default`: at a `default` beside a reference generators of clients give up."""
    if isinstance(schema, dict):
        if isinstance(schema.get("default"), dict) and schema.keys() & {"$ref", "anyOf", "oneOf"}:
            schema["x-default"] = schema.pop("default")
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _set_whole_defaults_apart(part)


def _ref(model: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model)}
