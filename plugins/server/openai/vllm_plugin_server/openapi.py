"""``/openapi.json``, made of the same types that bodies are read with, and ``/docs``, a page of it."""

from __future__ import annotations

import html
import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.describe import describe
from vllm_plugin_server.ignored import IGNORED
from vllm_plugin_server.stream import json_answer

__all__ = ["document", "page", "schema_of"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def schema_of(context: ServerContext) -> dict[str, Any]:
    """The OpenAPI document of all routes that are served."""
    import vllm_core

    routes = context.state["routes"]
    types = {kind for one in routes for kind in (_said(one, "body"), _said(one, "answer")) if kind is not None}
    schemas, components = msgspec.json.schema_components(
        sorted(types, key=lambda kind: kind.__name__), ref_template="#/components/schemas/{name}"
    )
    refs = dict(zip(sorted(types, key=lambda kind: kind.__name__), schemas, strict=True))
    if not context.settings.lenient_requests:
        for component in components.values():
            if component.get("type") == "object" and "properties" in component:
                component["additionalProperties"] = False
    paths: dict[str, Any] = {}
    for one in routes:
        path = _PARAMETER.sub(r"{\1}", one.endpoint.path)
        for method in one.endpoint.methods:
            paths.setdefault(path, {})[method.lower()] = _operation(one, refs, path)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "vllm-core", "version": vllm_core.__version__},
        "paths": paths,
        "components": {"schemas": {**components, "Error": _ERROR}},
    }
    if context.settings.api_key:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _said(one: Any, name: str) -> Any:
    return getattr(one.handler, name, None)


def _operation(one: Any, refs: dict[Any, Any], path: str) -> dict[str, Any]:
    answer = _said(one, "answer")
    content: dict[str, Any] = {"application/json": {"schema": refs[answer] if answer else {}}}
    if _said(one, "streams"):
        content["text/event-stream"] = {"schema": {"type": "string"}}
    shape = _said(one, "error_schema") or {"$ref": "#/components/schemas/Error"}
    error = {"content": {"application/json": {"schema": shape}}}
    found: dict[str, Any] = {
        "summary": one.endpoint.summary,
        "operationId": re.sub(r"\W+", "_", f"{'_'.join(one.endpoint.methods)}{path}").strip("_").lower(),
        "responses": {
            "200": {"description": "the answer", "content": content},
            "4XX": {"description": "the request is wrong", **error},
            "5XX": {"description": "the server cannot answer it", **error},
        },
    }
    if names := _PARAMETER.findall(one.endpoint.path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if body := _said(one, "body"):
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": refs[body]}}}
    if idle := IGNORED.get(one.endpoint.path):
        found["description"] = "Accepted without effect: " + ", ".join(f"{k} ({v})" for k, v in idle.items())
    return found


def document(context: ServerContext) -> Any:
    made: dict[str, Any] = {}  # at the first request: all routes are known by then

    @describe()
    async def document(request: Request) -> Response:
        if not made:
            made.update(schema_of(context))
        return json_answer(made)

    return document


def page(context: ServerContext) -> Any:
    @describe()
    async def page(request: Request) -> Response:
        headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(_page(schema_of(context)), media_type="text/html; charset=utf-8", headers=headers)

    return page


def _page(document: dict[str, Any]) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>vllm-core: the interface</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "code{background:#8882;padding:0 .2em}td,th{text-align:left;vertical-align:top;padding:.1em .8em .1em 0}"
        ":root{color-scheme:light dark}</style><h1>vllm-core: the interface</h1>"
        "<p>As a document for programs: <a href=openapi.json>openapi.json</a></p>"
    ]
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation['summary'])}</p>")
            body = operation.get("requestBody")
            if body is not None:
                reference = body["content"]["application/json"]["schema"].get("$ref", "")
                parts.append(_table(schemas.get(reference.rpartition("/")[2], {})))
            if "description" in operation:
                parts.append(f"<p>{html.escape(operation['description'])}</p>")
    return "".join(parts)


def _table(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        kinds = field.get("anyOf", [field])
        shown = " or ".join(dict.fromkeys(_kind(kind) for kind in kinds if kind.get("type") != "null"))
        about = next((kind["description"] for kind in kinds if "description" in kind), "")
        note = "required" if name in required else ""
        cells = (f"<code>{html.escape(name)}</code>", html.escape(shown), note, html.escape(about))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><tr><th>field<th>type<th><th>meaning</tr>{''.join(rows)}</table>"


def _kind(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        return kind["$ref"].rpartition("/")[2]
    low, high = kind.get("minimum", kind.get("exclusiveMinimum")), kind.get("maximum")
    bounds = f" {low} to {high}" if low is not None and high is not None else ""
    return f"{kind.get('type', 'anything')}{bounds}"
