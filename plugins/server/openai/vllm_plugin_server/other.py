"""One of several processes that speak HTTP. Started as ``python -m vllm_plugin_server.other`` by `others`."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from typing import Any

import attrs

from vllm_core.commands import EngineSettings, Given, load_catalog, read_policy

__all__ = ["main"]


def main() -> int:
    told = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    from vllm_core.serving import AsyncLLM
    from vllm_plugin_server import tracing
    from vllm_plugin_server.app import make_app
    from vllm_plugin_server.logs import observers as logs
    from vllm_plugin_server.logs.setup import configure
    from vllm_plugin_server.others import First
    from vllm_plugin_server.routes import choose
    from vllm_plugin_server.serve import make_context, open_socket, run
    from vllm_plugin_server.settings import ServerSettings

    settings = ServerSettings(**told["server"])
    configure(settings.log_level, settings.log_format, settings.api_key)
    engine_settings = EngineSettings(**{**told["engine"], "plugin": _with_sources(told["engine"]["plugin"])})
    catalog = load_catalog(read_policy(engine_settings.plugins), import_modules=False)
    if told["bound"] is None:
        listener = socket.socket(fileno=told["listener"])
    else:
        os.close(told["listener"])
        host, port = told["bound"]
        listener = open_socket(attrs.evolve(settings, host=host, port=port), several=True)
    engine = AsyncLLM.connect(told["address"], engine_settings, carry_over=settings.carry_over)
    try:
        context = make_context(engine, settings, catalog)
        logs.attach(context)
        tracing.attach(context)
        context.on_startup.append(_say_ready)
        endpoints = choose(catalog.entries("http_endpoints"), catalog.prefer("http_endpoints"))
        return run(make_app(context, endpoints), context, listener, None, First(engine, os.getppid()))
    finally:
        engine.shutdown()


async def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _with_sources(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings of plugins as the parent has them: a value with its source is a table on the way."""
    fields = {field.name for field in attrs.fields(Given)}
    return {
        name: {key: Given(**v) if isinstance(v, dict) and v.keys() == fields else v for key, v in table.items()}
        for name, table in tables.items()
    }


def _end_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)  # whatever runs: nobody restarts or watches this process


if __name__ == "__main__":
    sys.exit(main())
