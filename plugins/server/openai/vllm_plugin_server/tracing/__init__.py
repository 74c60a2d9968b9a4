"""OpenTelemetry traces: a span for each call of the engine. An extra: ``pip install 'vllm-plugin-server[otel]'``.

Nothing here imports opentelemetry before ``--otlp-traces-endpoint`` asks for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

__all__ = ["attach", "check"]

LAST_SPANS = 3.0  # seconds to send them, when the server ends


def check(settings: Any) -> None:
    """Whether traces can be sent where ``otlp_traces_endpoint`` says, before a model is loaded for nothing."""
    if settings.otlp_traces_endpoint:
        from vllm_plugin_server.tracing.export import open_provider

        open_provider(settings.otlp_traces_endpoint).shutdown()


def attach(context: Any) -> None:
    """Let a server send traces if its setting ``otlp_traces_endpoint`` says where to."""
    if context.settings.otlp_traces_endpoint:
        from vllm_plugin_server.tracing.export import open_provider
        from vllm_plugin_server.tracing.spans import CallSpans

        provider = open_provider(context.settings.otlp_traces_endpoint)
        context.observers.append(CallSpans(provider, next(iter(context.models), "")))

        async def flush() -> None:
            thread = threading.Thread(target=provider.shutdown, daemon=True)  # a collector may not answer
            thread.start()
            end = time.monotonic() + LAST_SPANS
            while thread.is_alive() and time.monotonic() < end:
                await asyncio.sleep(0.02)

        context.on_shutdown.append(flush)
