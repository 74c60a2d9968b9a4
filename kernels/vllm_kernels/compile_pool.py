"""Machine code made in the background, several at a time, while an engine binds its layers and reads weights.

NVRTC compiles one source after the other within a process: what comes meanwhile goes to processes of the pool's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any

from vllm_kernels import nvrtc
from vllm_kernels.compiler import SOURCES, compile_source, machine_code

MOST = 8  # processes, each of some hundred MB while it compiles


class CompilePool:
    """``submit(file, arch, defines, use)`` -> future of ``use(machine code)``, called in a thread of the pool."""

    def __init__(self, processes: int | None = None) -> None:
        most = processes or max(1, min(MOST, len(os.sched_getaffinity(0))))
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="kernels")
        self._lock, self._left, self._idle = Lock(), 0, list[subprocess.Popen[bytes]]()
        self._here = Lock()  # whoever has it compiles in this process

    def submit(
        self, file: str, arch: str, defines: Mapping[str, str | int], use: Callable[[bytes], Any]
    ) -> Future[Any]:
        with self._lock:
            self._left += 1
        return self._threads.submit(self._run, file, arch, defines, use)

    def _run(self, file: str, arch: str, defines: Mapping[str, str | int], use: Callable[[bytes], Any]) -> Any:
        try:
            return use(machine_code(file, arch, defines, self._compile))
        finally:
            with self._lock:
                self._left -= 1
                done, self._idle = (self._idle, []) if not self._left else ([], self._idle)
            for process in done:
                _end(process)

    def _compile(self, file: str, arch: str, options: list[str]) -> bytes:
        """Here, if nothing is compiled here; else in a process that is free, or a new one."""
        if self._here.acquire(blocking=False):
            try:
                return compile_source(file, arch, options)
            finally:
                self._here.release()
        with self._lock:
            process = self._idle.pop() if self._idle else None
        try:
            process = process or _start()
            answer, code = _ask(process, file, [f"-arch=sm_{arch}", *options])
        except (OSError, ValueError, EOFError):
            if process is not None:
                process.kill()
                _end(process)
            return compile_source(file, arch, options)
        with self._lock:
            self._idle.append(process)
        if "error" in answer:
            raise nvrtc.CompileError(answer["error"])
        return code


def _start() -> subprocess.Popen[bytes]:
    # -P: the folder of nvrtc.py has modules with common names, which must not be found instead of others'.
    return subprocess.Popen(
        [sys.executable, "-P", nvrtc.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _ask(process: subprocess.Popen[bytes], file: str, options: list[str]) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([str(SOURCES), file, options]).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise EOFError("the compiling process ended")
    answer = json.loads(line)
    size = answer.get("size", 0)
    code = process.stdout.read(size)
    if len(code) != size:
        raise EOFError("the compiling process ended")
    return answer, code


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):  # it has ended already
        process.stdin.close()
    process.wait()
    process.stdout.close()
