"""The caller's end of an engine process: start it, talk to it, notice when it is gone."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import zmq

from vllm_core.config.engine import EngineSettings
from vllm_core.engine import wire
from vllm_core.engine.errors import EngineDeadError

__all__ = ["EngineProcess"]

STOP_SECONDS = 5.0  # for the process to end by itself


class EngineProcess:
    """``__init__`` starts the process, which imports what it will need; ``build`` tells it what to build.

    One thread sends and receives; ``on_death`` is called once, in another thread.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vllm-core-"))  # readable by its owner only
        self._socket: Any = zmq.Context.instance().socket(zmq.PAIR)
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):  # nothing is kept at the end, nothing bounded before
            self._socket.setsockopt(option, 0)
        self.address = f"ipc://{self._folder}/engine"
        self._socket.bind(self.address)
        command = [sys.executable, "-m", "vllm_core.engine.process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self._stopping = threading.Event()
        self.stop = weakref.finalize(self, _stop, self._process, self._socket, self._folder, self._stopping)

    def build(self, settings: EngineSettings, digest: str) -> wire.Ready:
        """Wait until the engine is ready. Raises ``EngineDeadError`` with its reason if it does not get there."""
        try:
            start = wire.encode(wire.Start(settings=attrs.asdict(settings), digest=digest, address=self.address))
        except TypeError as error:
            raise ValueError(f"a setting cannot be sent to the engine's process: {error}; use plain data") from None
        try:
            self._process.stdin.write(len(start).to_bytes(8, "little") + start)  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            raise EngineDeadError(f"the engine process {self.cause()}") from None
        while not self._socket.poll(100):
            if self._process.poll() is not None and not self._socket.poll(0):
                raise EngineDeadError(f"the engine process {self.cause()} while it was built")
        message = wire.decode_up(self._socket.recv())
        if isinstance(message, wire.Failed):
            raise EngineDeadError(f"{message.kind}: {message.error}")
        assert isinstance(message, wire.Ready)
        return message

    def watch(self, on_death: Callable[[str], None]) -> None:
        """Call ``on_death`` with what happened as soon as the process ends without being told to."""

        def wait(process: subprocess.Popen[bytes], stopping: threading.Event) -> None:
            process.wait()
            if not stopping.is_set():
                on_death(_how(process))

        threading.Thread(target=wait, args=(self._process, self._stopping), daemon=True).start()

    def cause(self) -> str:
        self._process.wait()
        return _how(self._process)

    def send(self, message: wire.Down) -> None:
        """Never waits: the engine takes what comes between its steps."""
        with contextlib.suppress(zmq.Again):  # nobody is there any more: ``on_death`` says so
            self._socket.send(wire.encode(message), zmq.NOBLOCK)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def socket(self) -> Any:
        return self._socket


def _how(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"(pid {process.pid}) {ending}"


def _stop(process: subprocess.Popen[bytes], socket: Any, folder: Path, stopping: threading.Event) -> None:
    stopping.set()
    try:
        socket.send(wire.encode(wire.Stop()), zmq.NOBLOCK)
        process.wait(STOP_SECONDS)
    except (zmq.ZMQError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        socket.close()
        shutil.rmtree(folder, ignore_errors=True)
