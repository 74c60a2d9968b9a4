"""The engine's side of its socket: who has which requests, and what each is told."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import zmq

from vllm_core.engine import wire
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.engine.pids import wait_for_end
from vllm_core.engine.scarce import again

__all__ = ["Front", "Fronts"]

log = logging.getLogger(__name__)


@attrs.define(eq=False, slots=True)
class Front:
    name: bytes  # identity of its socket
    pid: int
    requests: set[str] = attrs.field(factory=set)  # that the engine has for it
    watches: bool = False  # wants figures
    compares: bool = False  # wants to know how much others want
    told: int = 0  # of that, requests


class Fronts:
    """Used by the engine's loop alone; a thread for each process of fronts waits for its end.

    first   the front that started the engine
    """

    def __init__(self, address: str, first: str) -> None:
        self.address, self.first = address, first.encode()
        self.socket: Any = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 1000)  # milliseconds for the last words
        self.socket.setsockopt(zmq.SNDHWM, 0)  # updates wait for a slow caller, the engine does not
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # who cannot be told has gone: an error, not silence
        self.socket.bind(address)
        self._all: dict[bytes, Front] = {}
        self._of: dict[str, Front] = {}  # by request
        self._watched: set[int] = set()  # pids

    def receive(self, wait: bool) -> tuple[bytes, wire.Down] | None:
        """The next message and whose it is. Without ``wait`` None if there is none. What cannot be read is left out."""
        while True:
            try:
                name, frame = self.socket.recv_multipart(0 if wait else zmq.NOBLOCK)
                return name, again(partial(wire.decode_down, frame), "read a message to the engine")
            except zmq.Again:
                return None
            except (zmq.ZMQError, MemoryError):  # its sender would wait for ever
                raise
            except Exception as error:  # another number of frames, or nothing that the schemas have
                log.error("a message to the engine cannot be read: %s", error)

    def get(self, name: bytes) -> Front | None:
        return self._all.get(name)

    def greet(self, name: bytes, hello: wire.Hello) -> None:
        self._all[name] = Front(name, hello.pid)
        if hello.pid not in self._watched:
            self._watched.add(hello.pid)
            threading.Thread(target=self._watch, args=(hello.pid,), daemon=True, name="vllm-core-front").start()

    def _watch(self, pid: int) -> None:
        """In a thread: wait for the end of a process, and say so to the loop."""
        wait_for_end(pid)
        self._say(pid, wire.Gone(pid))

    def break_off(self, reason: str) -> None:
        """From any thread: the loop ends with this reason."""
        self._say(os.getpid(), wire.Broken(reason))

    def _say(self, name: int, message: wire.Down) -> None:
        """To the loop, as everybody talks to it."""
        socket: Any = zmq.Context.instance().socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, b"own" + str(name).encode())
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(self.address)
        socket.send(wire.encode(message))
        socket.close()

    def leave(self, front: Front) -> list[str]:
        """Forget a front; the requests that it had."""
        self._all.pop(front.name, None)
        for request_id in front.requests:
            self._of.pop(request_id, None)
        return sorted(front.requests)

    def of_process(self, pid: int) -> list[Front]:
        """The fronts of a process that has ended."""
        self._watched.discard(pid)
        return [front for front in self._all.values() if front.pid == pid]

    def take(self, front: Front, new: NewRequest) -> None:
        """Updates of this request are this front's."""
        front.requests.add(new.request_id)
        self._of[new.request_id] = front

    def has(self, front: Front, request_id: str) -> bool:
        return request_id in front.requests

    def send(self, name: bytes, message: wire.Up) -> bool:
        """Whether the front is there. Never waits."""
        frame = again(partial(wire.encode, message), "tell what has come of requests")
        try:
            self.socket.send_multipart([name, frame], zmq.NOBLOCK)
        except zmq.ZMQError:  # its end is told by ``Gone`` or ``Leave``
            return False
        return True

    def tell(self, updates: Sequence[Update]) -> None:
        """Each update to the front that has the request."""
        found: dict[bytes, list[Update]] = {}
        for update in updates:
            front = self._of.get(update.request_id)
            if front is None:
                continue
            found.setdefault(front.name, []).append(update)
            if update.finish_reason is not None:
                del self._of[update.request_id]
                front.requests.discard(update.request_id)
        for name, its in found.items():
            self.send(name, wire.Updates(its))

    def tell_watchers(self, figures: wire.Figures) -> None:
        for front in self._all.values():
            if front.watches:
                self.send(front.name, figures)

    def tell_load(self) -> None:
        """How many requests others have here, to those fronts that choose among engines."""
        comparing = [front for front in self._all.values() if front.compares]
        if len(self._all) < 2 and not any(front.told for front in comparing):
            return
        total = sum(len(front.requests) for front in self._all.values())
        for front in comparing:
            if (others := total - len(front.requests)) != front.told:
                front.told = others
                self.send(front.name, wire.Load(others))

    def tell_all(self, message: wire.Up) -> None:
        for name in self._all:
            self.send(name, message)

    @property
    def watched(self) -> bool:
        return any(front.watches for front in self._all.values())

    def close(self) -> None:
        self.socket.close()
