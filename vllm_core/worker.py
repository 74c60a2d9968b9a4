"""One rank of a model, in a process of its own: ``python -m vllm_core.worker``, started by an executor.

Standard input is a channel to the engine, and its end the end of this process. The first message says what to build;
choices that lead to another lock than the engine's are refused.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import Any

from vllm_core.distributed.channel import Channel, ChannelClosed
from vllm_core.distributed.messages import Failed, Result, Start, Started, Step, decode_down, encode
from vllm_core.engine.pids import die_with_parent, wait_for_end

__all__ = ["main"]


def main() -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group they reach all; the engine decides
        signal.signal(ignored, signal.SIG_IGN)
    channel = Channel.inherited(os.dup(sys.stdin.fileno()))
    try:
        start = decode_down(channel.receive() or b"")
        assert isinstance(start, Start)
        die_with_parent(start.engine)
        threading.Thread(target=_end_with_the_engine, args=(start.engine,), daemon=True).start()
        return _serve(channel, start)
    except ChannelClosed:
        return 0


def _serve(channel: Channel, start: Start) -> int:
    from vllm_core.distributed.share import build_share
    from vllm_core.runner.inprocess import InProcessExecutor

    try:
        share = build_share(start)
        executor = InProcessExecutor(share)
        capacity = executor.start()
        share.open_grammars(capacity.vocab_size)
    except Exception as error:
        channel.send(encode(_failed(error)))
        return 1
    channel.send(
        encode(
            Started(
                vocab_size=capacity.vocab_size,
                lookahead=capacity.lookahead,
                memory=capacity.memory,
                timings=capacity.timings,
            )
        )
    )
    launched: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_report, args=(channel, launched, share.speaks), daemon=True).start()
    try:
        while True:
            message = decode_down(channel.receive() or b"")
            assert isinstance(message, Step)
            try:
                launched.put((message.plan.step, executor.launch(message.plan)))
            except Exception as error:  # the device's memory was too small, say: others wait for this rank by now
                channel.send(encode(_failed(error, message.plan.step)))
                os._exit(1)
    except ChannelClosed:
        os._exit(0)  # whatever a step is waiting for


def _report(channel: Channel, launched: queue.SimpleQueue[Any], speaks: bool) -> None:
    """In a thread: wait for steps in their order, and tell what they gave, or that this rank cannot go on."""
    while True:
        step, pending = launched.get()
        try:
            result = pending.result()
        except Exception as error:
            channel.send(encode(_failed(error, step)))
            os._exit(1)
        if speaks:
            channel.send(encode(Result(result)))


def _failed(error: BaseException, step: int = -1) -> Failed:
    """With the first cause: what a step raised is wrapped."""
    from vllm_core.distributed.torch_group import PeerLost

    cause: BaseException = error
    while not isinstance(cause, PeerLost) and cause.__cause__ is not None:
        cause = cause.__cause__
    return Failed(str(cause) or repr(cause), type(cause).__name__, isinstance(cause, PeerLost), step)


def _end_with_the_engine(pid: int) -> None:
    wait_for_end(pid)
    os._exit(1)  # whatever this rank is doing: nobody waits for it


if __name__ == "__main__":
    sys.exit(main())
