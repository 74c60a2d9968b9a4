"""A node without a server: its engines belong to it, and the requests of another host's server come in by its gate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import zmq

from vllm_core import __version__
from vllm_core.config.engine import EngineSettings
from vllm_core.engine import wire
from vllm_core.engine.far.places import endpoint_at
from vllm_core.engine.far.secret import Keys, read_keys
from vllm_core.engine.far.words import BEAT, FRONT, LOOKS, Refused, Report, decode_answer, encode
from vllm_core.engine.fleet.engines import ended_on_error, own_these
from vllm_core.engine.fleet.plan import plan_node
from vllm_core.engine.home import Home, Status
from vllm_core.engine.link import Link

__all__ = ["run_node"]

log = logging.getLogger(__name__)

LEAVE = wire.encode(wire.Leave())
LARGEST = 1 << 28  # bytes of a message


def run_node(settings: EngineSettings, restarts: int, window: float = 600.0) -> int:
    """Until a signal, or until the server refuses the node, or its engines have ended for good: 0, or 1."""
    plan = plan_node(settings)
    assert settings.data_parallel_secret_file is not None
    assert settings.data_parallel_address is not None
    keys = read_keys(settings.data_parallel_secret_file, gate=False)
    endpoint = endpoint_at(settings.data_parallel_address, settings.data_parallel_rpc_port)
    from vllm_core.engine.resolve import resolve

    with ended_on_error(own_these(plan.here, settings, restarts, window)) as engines:
        resolved = resolve(settings)
        engines.start(resolved.settings, resolved.lock.digest, _nothing)
        try:
            return asyncio.run(_attend(engines.owned, endpoint, keys))
        finally:
            engines.stop()


class _Nobody:
    """``attached.Customer`` without requests: those of other hosts pass by, in the relay."""

    def lost(self, cause: str, back: bool) -> None:
        """The relay reports it."""

    def back(self, link: Link) -> None:
        """The relay reports it."""

    def read(self, message: wire.Up) -> None:
        """Nothing was asked."""

    def open_requests(self) -> list[str]:
        return []


async def _attend(engines: Mapping[int, Any], endpoint: str, keys: Keys) -> int:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, over.set)
    for engine in engines.values():
        engine.attend(loop, _Nobody())
    relay = Relay(endpoint, keys, {number: engine.home for number, engine in engines.items()})
    thread = threading.Thread(target=relay.run, daemon=True, name="vllm-core-relay")
    thread.start()
    log.info("engines %s are ready for the server at %s", ", ".join(map(str, engines)), endpoint)
    code = 0
    while not over.is_set():
        try:
            async with asyncio.timeout(BEAT):
                await over.wait()
        except TimeoutError:
            pass
        if relay.refused or all(engine.state.now == "dead" for engine in engines.values()):
            log.critical("%s", relay.refused or "all engines of this node have ended")
            code = 1
            break
    relay.stop.set()
    await asyncio.to_thread(thread.join)
    for engine in engines.values():
        engine.detach()
    return code


class Relay:
    """Between the gate of another host and the engines of this one, in a thread of its own.

    Every front has a socket of its own at each engine, as if it were here.
    """

    def __init__(self, endpoint: str, keys: Keys, homes: Mapping[int, Home]) -> None:
        self.stop, self.refused = threading.Event(), ""
        self._homes, self._context = homes, zmq.Context()
        self._inner: dict[tuple[int, bytes], Any] = {}
        self._pids = dict.fromkeys(homes, 0)
        self._silent, self._heard, self._session = 0, False, 0
        self._poller = zmq.Poller()
        self._outer: Any = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.IDENTITY, secrets.token_hex(8).encode()), (zmq.CURVE_SERVERKEY, keys.other),
            (zmq.CURVE_SECRETKEY, keys.secret), (zmq.CURVE_PUBLICKEY, keys.public), (zmq.LINGER, 500),
            (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.MAXMSGSIZE, LARGEST), (zmq.IPV6, int("[" in endpoint)),
            (zmq.RECONNECT_IVL, 250), (zmq.IMMEDIATE, 1),
        ):  # fmt: skip
            self._outer.setsockopt(option, value)
        self._events: Any = self._outer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller.register(self._events, zmq.POLLIN)
        self._outer.connect(endpoint)
        self._poller.register(self._outer, zmq.POLLIN)

    def run(self) -> None:
        due = 0.0
        while not self.stop.is_set() and not self.refused:
            if time.monotonic() >= due:
                due = time.monotonic() + BEAT
                self._beat()
            ready = dict(self._poller.poll(max(0, round(1000 * (due - time.monotonic())))))
            if ready.pop(self._events, None):
                self._events.recv_multipart()
                self._lose("the connection to the server was lost")
            if ready.pop(self._outer, None):
                self._take(self._outer.recv_multipart())
            for (number, front), inner in list(self._inner.items()):
                if inner in ready and not inner.closed:
                    self._send([str(number).encode(), front, inner.recv()])
        self._report({})
        for number in self._homes:
            self._drop(number)
        self._poller.unregister(self._events)
        self._outer.disable_monitor()
        self._events.close()
        self._outer.close()
        self._context.term()

    def _beat(self) -> None:
        engines = {number: home.read() for number, home in self._homes.items()}
        for number, status in engines.items():
            if status is not None and status.engine != self._pids[number]:
                self._pids[number] = status.engine
                self._drop(number)  # of the engine that was there before
        self._report({number: status for number, status in engines.items() if status is not None})
        self._silent += 1
        if self._silent > LOOKS:
            self._lose(f"the server has not been heard for {LOOKS * BEAT:.0f} s")

    def _lose(self, cause: str) -> None:
        """What was on its way is gone, on either side: the gate is told by another number of the session."""
        self._session += 1
        self._silent = 0
        if self._heard:
            log.error("%s; its requests are ended", cause)
            self._heard = False
        for number in self._homes:
            self._drop(number)

    def _report(self, engines: dict[int, Status]) -> None:
        self._send([encode(Report(__version__, socket.gethostname(), self._session, engines))])

    def _send(self, frames: list[bytes]) -> None:
        with contextlib.suppress(zmq.Again):  # no server just now
            self._outer.send_multipart(frames, zmq.NOBLOCK)

    def _take(self, frames: list[bytes]) -> None:
        self._silent = 0
        if len(frames) == 1:
            answer = decode_answer(frames[0])
            if isinstance(answer, Refused):
                self.refused = f"the server refuses this node: {answer.reason}"
            elif not self._heard:
                self._heard = True
                log.info("the server has let this node in")
            return
        number, front, frame = int(frames[0]), frames[1], frames[2]
        if number not in self._homes or not FRONT.fullmatch(front):
            return
        inner = self._inner.get((number, front))
        if inner is None:
            hello = wire.decode_down(frame)
            if not isinstance(hello, wire.Hello):
                return  # for an engine that has ended: its front will begin again
            frame = wire.encode(wire.Hello(digest=hello.digest, pid=os.getpid()))  # its end is told by the gate
            inner = self._inner[number, front] = self._open(number, front)
        inner.send(frame, zmq.NOBLOCK)
        if frame == LEAVE:
            self._close(number, front)

    def _open(self, number: int, front: bytes) -> Any:
        inner: Any = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.IDENTITY, front), (zmq.LINGER, 500), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0)):
            inner.setsockopt(option, value)
        inner.connect(self._homes[number].address)
        self._poller.register(inner, zmq.POLLIN)
        return inner

    def _close(self, number: int, front: bytes) -> None:
        inner = self._inner.pop((number, front))
        self._poller.unregister(inner)
        inner.close()

    def _drop(self, number: int) -> None:
        for its, front in list(self._inner):
            if its == number:
                self._inner[its, front].send(LEAVE, zmq.NOBLOCK)
                self._close(its, front)


def _nothing() -> None:
    """There is no text to be opened here: the server has it."""
