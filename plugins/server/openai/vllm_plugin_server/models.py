"""``/v1/models``."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.describe import describe
from vllm_plugin_server.generation import model_of
from vllm_plugin_server.stream import json_answer

__all__ = ["listing", "one"]


def _record(context: ServerContext, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(context.started),
        "owned_by": "vllm-core",
        "root": context.engine.settings.model,
        "parent": None,
        "max_model_len": context.engine.ready.longest,
    }


def listing(context: ServerContext) -> Any:
    @describe()
    async def models(request: Request) -> Response:
        return json_answer({"object": "list", "data": [_record(context, name) for name in context.models]})

    return models


def one(context: ServerContext) -> Any:
    @describe()
    async def model(request: Request) -> Response:
        return json_answer(_record(context, model_of(context, request.path_params["model"])))

    return model
