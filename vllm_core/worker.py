"""One rank of a model, in a process of its own: ``python -m vllm_core.worker``, started by the executor "mp".

Standard input is a channel to the engine, and its end the end of this process. The first message says what to build;
choices that lead to another lock than the engine's are refused.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from vllm_core.distributed.channel import Channel, ChannelClosed
from vllm_core.distributed.messages import Failed, Start, decode_down, encode
from vllm_core.engine.log_queue import log_beside
from vllm_core.engine.pids import die_with_parent, wait_for_end

__all__ = ["main"]


def main() -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group they reach all; the engine decides
        signal.signal(ignored, signal.SIG_IGN)
    log_beside()  # no step waits for who reads standard error
    channel = Channel.inherited(os.dup(sys.stdin.fileno()))
    try:
        start = decode_down(channel.receive() or b"")
        assert isinstance(start, Start)
        die_with_parent(start.engine)
        threading.Thread(target=_end_with_the_engine, args=(start.engine,), daemon=True).start()
        return _serve(channel, start)
    except ChannelClosed:
        os._exit(0)  # whatever a step is waiting for


def _serve(channel: Channel, start: Start) -> int:
    from vllm_core.distributed.rank import Rank, failed

    rank = Rank(start)
    try:
        started = rank.load()
    except Exception as error:
        channel.send(encode(failed(error)))
        return 1
    channel.send(encode(started))
    threading.Thread(target=_report, args=(channel, rank), daemon=True).start()
    while True:
        last_word = rank.launch(channel.receive() or b"")
        if last_word is not None:
            channel.send(encode(last_word))
            _exit()


def _report(channel: Channel, rank: Any) -> None:
    """In a thread: wait for steps in their order, and tell what they gave, or that this rank cannot go on."""
    while True:
        message = rank.take()
        if message is not None:
            channel.send(encode(message))
        if isinstance(message, Failed):
            _exit()


def _exit() -> NoReturn:
    logging.shutdown()  # what waits to be written
    os._exit(1)


def _end_with_the_engine(pid: int) -> None:
    wait_for_end(pid)
    os._exit(1)  # whatever this rank is doing: nobody waits for it


if __name__ == "__main__":
    sys.exit(main())
