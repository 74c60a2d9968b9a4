"""Where nodes come in: their engines appear in homes of this host, and fronts find them there like any other.

It carries frames between the fronts, which have Unix sockets here, and the nodes. It reads only the first one of each
front, to know whose end to watch for.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import attrs
import msgspec
import zmq
import zmq.auth.thread
from msgspec import structs

from vllm_core import __version__
from vllm_core.engine import wire
from vllm_core.engine.far.places import bind
from vllm_core.engine.far.secret import Keys
from vllm_core.engine.far.words import BEAT, FRONT, LOOKS, Heard, Refused, Report, decode_report, encode
from vllm_core.engine.home import Home, Status
from vllm_core.engine.pids import exists

__all__ = ["Gate"]

log = logging.getLogger(__name__)

LARGEST = 1 << 28  # bytes of a message
LEAVE = wire.encode(wire.Leave())


@attrs.define(eq=False)
class _Node:
    name: bytes  # identity of its socket
    host: str
    numbers: frozenset[int]
    session: int
    silent: int = 0  # looks


@attrs.define(eq=False)
class _Place:
    """Of one engine."""

    number: int
    home: Home
    inner: Any  # socket of the fronts
    node: _Node | None = None
    there: Status | None = None  # as its node told last
    starts: int = 0  # times that it became ready, here
    fronts: dict[bytes, int] = attrs.field(factory=dict)  # pids


class _Allowed:
    """The one key that nodes have."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._key


class Gate:
    """``numbers``: of the engines that may come. ``close`` ends its thread and removes the homes."""

    def __init__(self, address: str, port: int, keys: Keys, numbers: tuple[int, ...]) -> None:
        self._context: Any = zmq.Context()
        self._doorman = zmq.auth.thread.ThreadAuthenticator(self._context)
        self._doorman.start()
        self._doorman.configure_curve_callback("*", _Allowed(keys.other))
        self._outer = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.CURVE_SERVER, 1), (zmq.CURVE_SECRETKEY, keys.secret), (zmq.CURVE_PUBLICKEY, keys.public),
            (zmq.LINGER, 500), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.MAXMSGSIZE, LARGEST),
        ):  # fmt: skip
            self._outer.setsockopt(option, value)
        self._stop, self._places = threading.Event(), dict[int, _Place]()
        try:
            self.endpoint = bind(self._outer, address, port)
            for number in numbers:
                self._places[number] = self._place(number)
        except BaseException:
            self._thread: threading.Thread | None = None
            self.close()
            raise
        self._thread = threading.Thread(target=self._run, daemon=True, name="vllm-core-gate")
        self._thread.start()

    @property
    def homes(self) -> dict[int, Home]:
        return {number: place.home for number, place in self._places.items()}

    def close(self) -> None:
        """Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for place in self._places.values():
            place.inner.close()
            place.home.remove()
        self._outer.close()
        if self._doorman.is_alive():
            self._doorman.stop()
        self._context.term()

    def _place(self, number: int) -> _Place:
        home, inner = Home.make(), self._context.socket(zmq.ROUTER)
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):
            inner.setsockopt(option, 0)
        inner.bind(home.address)
        home.write(Status(state="starting", owner=os.getpid(), far=True))
        return _Place(number, home, inner)

    def _run(self) -> None:
        poller = zmq.Poller()
        of = {place.inner: place for place in self._places.values()}
        for watched in (self._outer, *of):
            poller.register(watched, zmq.POLLIN)
        due = time.monotonic() + BEAT
        while not self._stop.is_set():
            for ready, _ in poller.poll(max(0, round(1000 * (due - time.monotonic())))):
                try:
                    if ready in of:
                        self._carry(of[ready])
                    else:
                        self._hear()
                except zmq.ZMQError as error:
                    log.error("a message for or of another host is lost: %s", error)
            if time.monotonic() >= due:
                due = time.monotonic() + BEAT  # not earlier: a gate that was held up itself accuses nobody
                self._look()

    # ---- from nodes

    def _hear(self) -> None:
        name, *frames = self._outer.recv_multipart()
        if len(frames) == 3:
            number, front, frame = frames
            place = self._places.get(int(number)) if number.isdigit() and len(number) < 6 else None
            if place is not None and place.node is not None and place.node.name == name and front in place.fronts:
                place.inner.send_multipart([front, frame], zmq.NOBLOCK)
            return
        try:
            report = decode_report(frames[0]) if len(frames) == 1 else None
        except msgspec.MsgspecError as error:
            log.error("a report of a node cannot be read: %s", error)
            report = None
        if report is not None:
            reason = self._wrong(name, report)
            if reason:
                log.error("a node at %s is refused: %s", report.host, reason)
            else:
                self._take(name, report)
            self._outer.send_multipart([name, encode(Refused(reason) if reason else Heard())], zmq.NOBLOCK)

    def _wrong(self, name: bytes, report: Report) -> str:
        if report.version != __version__:
            return f"it has vllm-core {report.version}, and the server has {__version__}: give all nodes the same"
        for number in report.engines:
            if (place := self._places.get(number)) is None:
                known = ", ".join(map(str, self._places))
                return f"it brings engine {number}, and the server waits for {known} (data_parallel_start_rank)"
            if place.node is not None and place.node.name != name:
                return f"it brings engine {number}, which the node at {place.node.host} has brought"
        return ""

    def _take(self, name: bytes, report: Report) -> None:
        known = next((p.node for p in self._places.values() if p.node is not None and p.node.name == name), None)
        if known is not None and known.session != report.session:
            for number in known.numbers:
                self._lose(self._places[number], f"the connection to the node at {known.host} was lost")
            known = None
        node = known or _Node(name, report.host, frozenset(report.engines), report.session)
        node.silent = 0
        if known is None and report.engines:
            log.info("the node at %s has brought engines %s", node.host, ", ".join(map(str, sorted(node.numbers))))
        for number in node.numbers:
            place = self._places[number]
            if (status := report.engines.get(number)) is None:
                self._lose(place, f"the node at {node.host} has ended")
                continue
            place.node, before, place.there = node, place.there, status
            if before == status:
                continue
            if status.state == "ready":
                place.starts += 1
            place.home.write(structs.replace(status, owner=os.getpid(), starts=place.starts, far=True))

    def _lose(self, place: _Place, cause: str) -> None:
        if place.node is not None:
            log.error("engine %d: %s", place.number, cause)
            for front in place.fronts:
                self._send(place, front, LEAVE)
            place.node = place.there = None
            place.fronts.clear()
            state = "restarting" if place.starts else "starting"
            place.home.write(Status(state=state, owner=os.getpid(), starts=place.starts, cause=cause, far=True))

    def _look(self) -> None:
        """Whether nodes and fronts are still there."""
        for node in {place.node for place in self._places.values() if place.node is not None}:
            node.silent += 1
            if node.silent > LOOKS:
                for number in node.numbers:
                    cause = f"the node at {node.host} has not been heard for {LOOKS * BEAT:.0f} s"
                    self._lose(self._places[number], cause)
        for place in self._places.values():
            for front, pid in list(place.fronts.items()):
                if not exists(pid):
                    del place.fronts[front]
                    self._send(place, front, LEAVE)

    # ---- from fronts

    def _carry(self, place: _Place) -> None:
        front, *frames = place.inner.recv_multipart()
        if len(frames) != 1 or not FRONT.fullmatch(front):
            return
        if front not in place.fronts:
            try:
                hello = wire.decode_down(frames[0])
            except msgspec.MsgspecError:
                return
            if not isinstance(hello, wire.Hello):
                return  # of before its node was lost: the front will begin again
            place.fronts[front] = hello.pid
        self._send(place, front, frames[0])
        if frames[0] == LEAVE:
            del place.fronts[front]

    def _send(self, place: _Place, front: bytes, frame: bytes) -> None:
        if place.node is not None:
            self._outer.send_multipart([place.node.name, str(place.number).encode(), front, frame], zmq.NOBLOCK)
