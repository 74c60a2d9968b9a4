"""Processes of ranks: how they are started and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import attrs

from vllm_core.distributed.channel import Channel
from vllm_core.engine.folders import OwnedFolder
from vllm_core.runner.host import usable_cores

__all__ = ["LAST_WORDS", "RankProcess", "end", "how_it_ended", "spawn"]

COMMAND = [sys.executable, "-m", "vllm_core.worker"]
LAST_WORDS = 1.0  # seconds in which a rank may tell what happened
STOP_SECONDS = 5.0  # for ranks to end by themselves


@attrs.define(eq=False)
class RankProcess:
    number: int
    channel: Channel
    process: subprocess.Popen[bytes]


def spawn(number: int, world: int) -> RankProcess:
    here, there = Channel.pair()
    threads = str(max(1, usable_cores() // world))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    try:
        return RankProcess(number, here, subprocess.Popen(COMMAND, stdin=there.fileno(), env=environment))
    finally:
        there.close()


def how_it_ended(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(LAST_WORDS)
    except subprocess.TimeoutExpired:
        return "has closed its connection"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def end(
    ranks: list[RankProcess],
    stopping: threading.Event,
    lock: threading.RLock,
    keeper: ThreadPoolExecutor,
    folder: OwnedFolder,
) -> None:
    """Ranks end when their channel is closed; those that do not are killed."""
    stopping.set()
    with lock:  # nobody reads any more
        for rank in ranks:
            rank.channel.close()
    deadline = time.monotonic() + STOP_SECONDS
    for rank in ranks:
        try:
            rank.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.process.kill()
            rank.process.wait()
    keeper.shutdown(wait=False)
    with lock:
        folder.remove()
