"""``/``, ``/page/{file}`` and ``/page/about``."""

from __future__ import annotations

import hashlib
import html
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.page import FILES, TYPES
from vllm_plugin_server.page.about import about_server
from vllm_plugin_server.stream import json_answer

__all__ = ["about", "file", "index"]

# Nothing from elsewhere, nothing inline, in no frame: text that a model or a client wrote cannot become a program.
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'self'; object-src 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # asks each time whether it has changed
}
BASE = '<base href="./">'


def index(context: ServerContext) -> Any:
    text = (FILES / "index.html").read_text()

    @describe()
    async def index(request: Request) -> Response:
        """The page. Behind a prefix its addresses begin with that."""
        root = request.scope.get("root_path", "").rstrip("/")
        page = text.replace(BASE, f'<base href="{html.escape(root)}/">') if root else text
        return _answer(request, page.encode(), ".html")

    return index


def file(context: ServerContext) -> Any:
    known = {path.name: path.read_bytes() for path in FILES.iterdir() if path.name != "index.html"}

    @describe()
    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in known:
            raise ApiError(404, f"the page has no file {name[:120]!r}", code="not_found")
        return _answer(request, known[name], name[name.rindex(".") :])

    return file


def about(context: ServerContext) -> Any:
    @describe()
    async def about(request: Request) -> Response:
        """What the page says of the server."""
        return json_answer(about_server(context), headers={"cache-control": "no-store"})

    return about


def _answer(request: Request, body: bytes, suffix: str) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {**HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=TYPES[suffix])
