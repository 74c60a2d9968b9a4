"""``/metrics`` and ``/load``."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.describe import describe
from vllm_plugin_server.metrics.board import Board
from vllm_plugin_server.stream import json_answer

__all__ = ["load", "metrics"]

BOARD = "metrics"  # in ``ServerContext.state``


def metrics(context: ServerContext) -> Any:
    board = _board(context)

    @describe()
    async def metrics(request: Request) -> Response:
        """The figures as Prometheus reads them."""
        await board.refresh()
        content_type, body = await board.page(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return metrics


def load(context: ServerContext) -> Any:
    board = _board(context)

    @describe()
    async def load(request: Request) -> Response:
        """How busy the server is, for balancers: vLLM's key, and what it is made of."""
        await board.refresh()
        return json_answer(await board.load())

    return load


def _board(context: ServerContext) -> Board:
    """One a server, made by the first of the routes; without any of them nothing is counted."""
    if BOARD not in context.state:
        engine = context.engine
        settings = engine.settings
        board = Board(
            model=next(iter(context.models)),
            longest=engine.ready.longest,
            ask=engine.stats,
            states=lambda: engine.states,
            pids=lambda: [pid for number, pid in engine.pids.items() if engine.states[number] == "ready"],
            timings=engine.timings,
            cache={
                "block_size": ",".join(dict.fromkeys(map(str, engine.ready.page_tokens))),
                "num_gpu_blocks": engine.ready.pages,  # vLLM's name, on any device
                "cache_dtype": settings.kv_cache_dtype,
                "enable_prefix_caching": settings.enable_prefix_caching,
                "gpu_memory_utilization": settings.gpu_memory_utilization,
                "kv_cache_memory": settings.kv_cache_memory,
            },
            prefix=context.settings.metrics_prefix,
        )
        context.state[BOARD] = board
        context.observers += [board.calls, board.http, board.loop]
        engine.on_stats(board.engines.took)
        context.on_startup.append(board.refresh)  # so that the first step is told of, whoever asks for it
    return context.state[BOARD]
