"""uvicorn's server with an end of our own: running requests finish, up to a deadline; a second signal ends at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import Pulse
from vllm_plugin_server.beats import QUIET, pulse_of
from vllm_plugin_server.boundary import Boundary
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.garbage import Collector
from vllm_plugin_server.others import First, Others
from vllm_plugin_server.signals import FORCED, SIGNALS

__all__ = ["DrainingServer"]

log = logging.getLogger(__name__)
LAST_WORDS = 1.0  # seconds for the errors of requests that are ended
FORCED_WORDS = 0.1  # seconds for them after a second signal
TICK = 0.02  # seconds


class DrainingServer(uvicorn.Server):
    """exit_code   0 after a drain; 128 and the signal's number after a second one; 1 if the engine is gone for good"""

    def __init__(
        self,
        config: uvicorn.Config,
        boundary: Boundary,
        context: ServerContext,
        address: str,
        begun: float | None,
        others: Others | First | None = None,
    ) -> None:
        super().__init__(config)
        self._boundary, self._context, self._address, self._begun = boundary, context, address, begun
        self._others, self._collector = others, Collector()
        self._pulse: Pulse | None = None
        self.exit_code = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for begin in self._context.on_startup:
            await begin()
        if self._others is not None:
            await self._others.ready()
            self._context.state["wrong"] = lambda: self._others.wrong
        self._collector.start()
        self._pulse = pulse_of(self._context.engine, os.getpid())
        await super().startup(sockets)
        if self._begun is not None:
            names = ", ".join(self._context.models)
            stages = getattr(self._context.engine, "timings", {})
            if stages:
                log.info("seconds of the engine's start: %s", ", ".join(f"{k} {v:.2f}" for k, v in stages.items()))
            log.info("serving %s at %s, ready after %.2f s", names, self._address, time.monotonic() - self._begun)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            self.exit_code = FORCED + sig
        self.should_exit = self._boundary.draining = True  # at once, and not with the next tick
        if self._others is not None:
            self._others.terminate()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self.handle_exit) for sig in SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def on_tick(self, counter: int) -> bool:
        if self._pulse is not None:
            self._pulse.busy(QUIET)
        dead = self._context.engine.dead
        if dead is not None:
            await asyncio.sleep(LAST_WORDS)  # so that /health has said so
            log.critical("the engine has ended: %s", dead)
            self.exit_code = 1
            return True
        if self._others is not None and (lost := self._others.look()):
            log.critical("%s", lost)
            self.exit_code = 1
            return True
        self._collector.tick(len(self._boundary.exchanges))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._boundary.draining = True  # where no signal has ended it
        if self._others is not None:
            self._others.terminate()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        deadline = time.monotonic() + self._context.settings.shutdown_timeout
        if self._boundary.exchanges and not self.force_exit:
            log.info(
                "ending: %d requests may go on for %g s; a second signal ends them",
                len(self._boundary.exchanges), self._context.settings.shutdown_timeout,
            )  # fmt: skip
        await self._empty(deadline)
        if left := len(self._boundary.exchanges):
            log.warning("ending %d requests that have not finished", left)
            self._boundary.stop_all(ApiError(503, "the server is shutting down", code="shutting_down"))
            await self._empty(time.monotonic() + (FORCED_WORDS if self.force_exit else LAST_WORDS), forced=True)
        for finish in self._context.on_shutdown:
            try:
                async with asyncio.timeout(FORCED_WORDS if self.force_exit else 5):
                    await finish()
            except Exception as error:
                log.error("at the end: %s: %s", type(error).__name__, error)
        while self._others is not None and self._others.alive and time.monotonic() < deadline + 2 * LAST_WORDS:
            if self.force_exit:
                break
            await asyncio.sleep(TICK)
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            transport.abort()
        self._context.work.close()
        log.info("ended")

    async def _empty(self, deadline: float, forced: bool = False) -> None:
        """Until no request is left, the deadline, or a second signal."""
        while self._boundary.exchanges and time.monotonic() < deadline and (forced or not self.force_exit):
            await asyncio.sleep(TICK)
