"""The process that reads large bodies: ``python -m vllm_plugin_server.reader_process``, started by `reader`."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys

import msgspec

from vllm_core.plugin import load_target
from vllm_plugin_server.body import read_tree
from vllm_plugin_server.errors import ApiError, error_of
from vllm_plugin_server.reader import Asked, Good, Wrong, receive, send

__all__ = ["main"]

NICE = 5  # open streams go before bodies
ESCAPES = 200_000  # backslashes in a body: with more, what is sent back has none
TRIM = 1 << 20  # bytes of a body after which memory goes back to the system


def main(seconds: float, memory: int) -> int:
    door = socket.socket(fileno=os.dup(0))
    os.nice(NICE)
    _limit_memory(memory)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)
    gc.collect()
    gc.freeze()
    gc.disable()  # JSON has no cycles, and looking for them takes longer than reading it
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Asked).decode
    send(door, b"ready")
    while True:
        try:
            message, raw = receive(door)
        except (EOFError, ConnectionResetError):
            return 0
        # Seconds of this process, not of the clock: a busy machine is no reason to refuse. SIGPROF ends it.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        found, body = _read(decode(message), raw)
        size = len(raw)
        del raw
        if size > TRIM:
            gc.collect()
            trim(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(door, encode(found), body)


def _read(asked: Asked, raw: bytes) -> tuple[Good | Wrong, bytes]:
    try:
        tree, _, names = read_tree(raw, load_target(asked.kind), asked.lenient)
        many = raw.count(b"\\") > ESCAPES
        return Good(names), json.dumps(tree, ensure_ascii=False).encode() if many else b""
    except MemoryError:
        return _wrong(ApiError(413, "reading the body takes too much memory")), b""
    except Exception as error:
        return _wrong(error_of(error)), b""


def _wrong(error: ApiError) -> Wrong:
    return Wrong(error.status, error.message, error.param, error.code)


def _limit_memory(more: int) -> None:
    """``more`` bytes than there are by now."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
    except (ImportError, OSError):
        return  # not on this system; the limit on time holds there
    bytes_ = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
