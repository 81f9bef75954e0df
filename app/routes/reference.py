"""The API's own description: the OpenAPI document, and a page that shows it without loading anything from elsewhere."""

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from app import openapi
from app.dependencies import Reader

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
code, pre {{ font-size: 14px }} pre {{ overflow: auto; background: #8881; padding: 1rem }}
</style>
<h1>{title}</h1><p>{description}</p>
{operations}
<h2>Schemas</h2>
{schemas}
</html>
"""


@router.get("/openapi.json")
def document(request: Request, _: Reader) -> Response:
    """Return the OpenAPI document."""
    return JSONResponse(openapi.document(request.app))


@router.get("/docs")
def page(request: Request, _: Reader) -> Response:
    """Return the page."""
    made = openapi.document(request.app)
    operations = [
        _operation(method, path, operation)
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_details(name, schema) for name, schema in sorted(made["components"]["schemas"].items())]
    filled = _PAGE.format(
        title=escape(made["info"]["title"]),
        description=escape(made["info"]["description"]),
        operations="\n".join(operations),
        schemas="\n".join(schemas),
    )
    return HTMLResponse(filled, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}) "
        f"{escape(parameter.get('description', ''))}</li>"
        for parameter in operation.get("parameters", [])
    )
    media_types = operation.get("requestBody", {}).get("content", {})
    bodies = "".join(
        f"<li>{escape(media_type)} {escape(body['schema'].get('$ref', '').rpartition('/')[2])}</li>"
        for media_type, body in media_types.items()
    )
    answers = "".join(
        f"<li>{escape(status)} {escape(response['description'])}</li>"
        for status, response in operation["responses"].items()
    )
    return (
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"
        f"<ul>{parameters}</ul><p>Body:</p><ul>{bodies or '<li>none</li>'}</ul><p>Answers:</p><ul>{answers}</ul>"
    )


def _details(name: str, schema: dict[str, Any]) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    return f"<details><summary><code>{escape(name)}</code></summary><pre>{escape(text)}</pre></details>"
