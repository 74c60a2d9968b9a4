"""CPU work of requests, in a few threads with a time limit, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from vllm_plugin_server.errors import ApiError

__all__ = ["TooLong", "Work"]

SMALL = 4096  # characters: a tokenizer's millisecond
TURN = 0.0005  # seconds after which Python code in a thread lets the event loop go on; 0.005 without this
GRACE = 1.0  # seconds in which a thread notices that it has been told to stop


class TooLong(BaseException):
    """Thrown into a thread; no ``except Exception`` of a template's filters holds it."""


@attrs.define(eq=False)
class _Job:
    thread: int = 0
    over: bool = False
    ended: bool = False  # the thread has come back
    told: float = 0.0  # when it was told to stop
    lock: threading.Lock = attrs.field(factory=threading.Lock)


class Work:
    """``await work(function, *arguments, size=...)``: at once if small, else in a thread.

    seconds   after which a ``TooLong`` is thrown into the thread and the caller gets ``ApiError`` 400
    """

    def __init__(self, threads: int, seconds: float) -> None:
        sys.setswitchinterval(TURN)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request-text")
        all_here = threading.Barrier(threads + 1)  # now, not with the first large requests: what a server holds is flat
        for _ in range(threads):
            self._pool.submit(all_here.wait)
        all_here.wait()
        self._seconds, self._threads = seconds, threads
        self._told: list[_Job] = []  # to stop

    async def __call__(self, function: Callable[..., Any], *arguments: Any, size: int = 0, **options: Any) -> Any:
        """``size``: about how many characters are read. The function must not call back into the event loop."""
        call = functools.partial(function, *arguments, **options)
        if size <= SMALL:
            return call()
        job = _Job()
        future = asyncio.get_running_loop().run_in_executor(self._pool, _run, job, call)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(future)
        except (TimeoutError, asyncio.CancelledError) as error:
            _throw(job)
            future.cancel()
            if job.thread and not job.ended:
                job.told = time.monotonic()
                self._told = [*(other for other in self._told if not other.ended), job]
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ApiError(
                400, f"reading the request took longer than {self._seconds:g} seconds", code="request_too_complex"
            ) from None
        finally:
            del future  # it may hold an exception whose traceback holds this frame: garbage with a whole body in it

    run = __call__

    @property
    def stuck(self) -> bool:
        """Whether no thread is left that could do anything: all of them have been told to stop, and go on."""
        self._told = [job for job in self._told if not job.ended]
        then = time.monotonic() - GRACE
        return sum(job.told < then for job in self._told) >= self._threads

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _run(job: _Job, call: Callable[[], Any]) -> Any:
    with job.lock:
        if job.over:  # nobody waits any more
            return None
        job.thread = threading.get_ident()
    try:
        return call()
    except TooLong:
        raise TimeoutError from None
    finally:
        try:
            with job.lock:
                job.over = True
        except TooLong:  # it came after the work
            job.over = True
        job.ended = True


def _throw(job: _Job) -> None:
    """Python code stops at its next instruction. Native code (the tokenizer) is linear, and ends by itself."""
    with job.lock:
        if job.thread and not job.over:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(job.thread), ctypes.py_object(TooLong))
        job.over = True
