"""One rank of a model, in a process of its own: ``python -m vllm_core.worker``, started by the executor "mp".

Standard input is a channel to the engine, and its end the end of this process. The first message says what to build;
choices that lead to another lock than the engine's are refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import Any, NoReturn

from vllm_core.distributed.channel import Channel, ChannelClosed
from vllm_core.distributed.messages import Failed, Start, decode_down, encode
from vllm_core.engine.log_queue import log_beside
from vllm_core.engine.pids import die_with_parent, wait_for_end

__all__ = ["main"]

log = logging.getLogger(__name__)


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group they reach all; the engine decides
        signal.signal(ignored, signal.SIG_IGN)
    log_beside()  # no step waits for who reads standard error
    channel = Channel.inherited(os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # processes that plugins start here must not keep the channel open
    os.close(null)
    try:
        start = decode_down(channel.receive() or b"")
        assert isinstance(start, Start)
        die_with_parent(start.engine)
        threading.Thread(target=_end_with_the_engine, args=(start.engine,), daemon=True).start()
        _serve(channel, start)
    except BaseException as error:
        _end(channel, error)


def _end(channel: Channel, error: BaseException) -> NoReturn:
    """At once, whatever other threads are waiting for."""
    if not isinstance(error, ChannelClosed):
        with contextlib.suppress(ChannelClosed):
            channel.send(encode(Failed(str(error) or repr(error), type(error).__name__)))
        log.error("this rank ends", exc_info=error)
        _exit()
    os._exit(0)  # the engine has gone


def _serve(channel: Channel, start: Start) -> NoReturn:
    from vllm_core.distributed.rank import Rank, failed

    rank = Rank(start)
    try:
        started = rank.load()
    except Exception as error:
        channel.send(encode(failed(error, owners=rank.owners)))
        _exit()
    channel.send(encode(started))
    threading.Thread(target=_report, args=(channel, rank), daemon=True).start()
    while True:
        last_word = rank.launch(channel.receive() or b"")
        if last_word is not None:
            channel.send(encode(last_word))
            _exit()


def _report(channel: Channel, rank: Any) -> None:
    """In a thread: wait for steps in their order, and tell what they gave, or that this rank cannot go on."""
    try:
        while True:
            message = rank.take()
            if message is not None:
                channel.send(encode(message))
            if isinstance(message, Failed):
                _exit()
    except BaseException as error:  # in a thread it would end nothing else, and the engine wait for ever
        _end(channel, error)


def _exit() -> NoReturn:
    logging.shutdown()  # what waits to be written
    os._exit(1)


def _end_with_the_engine(pid: int) -> None:
    wait_for_end(pid)
    os._exit(1)  # whatever this rank is doing: nobody waits for it


if __name__ == "__main__":
    main()
