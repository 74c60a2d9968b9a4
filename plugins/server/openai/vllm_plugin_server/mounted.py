"""The server inside a program that listens itself: an engine and the ASGI application in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from vllm_core.commands import EngineSettings
from vllm_core.serving import AsyncLLM, EngineRestartingError
from vllm_plugin_server import health, tracing
from vllm_plugin_server.app import make_app
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.garbage import Collector
from vllm_plugin_server.logs import observers as logs
from vllm_plugin_server.logs.setup import configure
from vllm_plugin_server.routes import choose
from vllm_plugin_server.serve import make_context, with_environment
from vllm_plugin_server.settings import ServerSettings

__all__ = ["Mounted"]

log = logging.getLogger(__name__)
LAST_WORDS = 1.0  # seconds for the errors of requests that are ended
TICK, TURN = 0.02, 1.0  # seconds between two looks: at what is open; at garbage and the engine
HOOK_SECONDS = 5.0  # that something which ends with the server may take


class Mounted:
    """Made anywhere (it blocks until the model is loaded), then used from one event loop.

    app   the ASGI application, which ``begin`` precedes and ``end`` follows; it has no lifespan of its own

    Where to listen, ``settings`` say in vain.
    """

    def __init__(self, engine_settings: EngineSettings, settings: ServerSettings, catalog: Any) -> None:
        settings = with_environment(settings)
        configure(settings.log_level, settings.log_format, settings.api_key)
        tracing.check(settings)
        endpoints = choose(catalog.entries("http_endpoints"), catalog.prefer("http_endpoints"))
        self.engine = AsyncLLM.from_settings(
            engine_settings, restarts=settings.engine_restarts, carry_over=settings.carry_over
        )
        try:
            self._context = make_context(self.engine, settings, catalog)
            logs.attach(self._context)
            tracing.attach(self._context)
            made = make_app(self._context, endpoints)
        except BaseException:
            self.engine.shutdown()
            raise
        self.app, self._boundary = made.app, made.boundary
        self._cleaning: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        for begin in self._context.on_startup:
            await begin()
        self._cleaning = asyncio.create_task(self._clean())
        await self.engine.check_health()  # from now on the engine is looked at

    async def check(self) -> None:
        """Return if requests are answered, or will be by the engine that is started next; else raise why not."""
        try:
            await health.check(self._context)
        except EngineRestartingError:
            return

    async def until_dead(self) -> str:
        """Wait until the engine has ended for good and its requests were told. Why it has."""
        while self.engine.dead is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN):
                    await self.engine.state_change()
        await self._empty(LAST_WORDS)
        return str(self.engine.dead)

    async def end(self, seconds: float = 0.0) -> None:
        """No new request is taken; those that run may go on for so long. Then the engine's process ends."""
        self._boundary.draining = True
        await self._empty(seconds)
        if left := len(self._boundary.exchanges):
            log.warning("ending %d requests that have not finished", left)
            self._boundary.stop_all(ApiError(503, "the server is shutting down", code="shutting_down"))
            await self._empty(LAST_WORDS)
        for finish in self._context.on_shutdown:
            try:
                async with asyncio.timeout(HOOK_SECONDS):
                    await finish()
            except Exception as error:
                log.error("at the end: %s: %s", type(error).__name__, error)
        if self._cleaning is not None:
            self._cleaning.cancel()
        self._context.work.close()
        self.engine.shutdown(now=self.engine.dead is not None)

    async def _empty(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._boundary.exchanges and time.monotonic() < deadline:
            await asyncio.sleep(TICK)

    async def _clean(self) -> None:
        collector = Collector()
        collector.start()
        while True:
            await asyncio.sleep(TURN)
            collector.tick(len(self._boundary.exchanges))
