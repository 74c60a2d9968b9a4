"""One compilation by NVRTC; also a program of its own, which compiles what it is sent: see `compile_pool`.

Imports nothing of this package, so that it can be run by its path and starts fast.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


class CompileError(RuntimeError):
    """NVRTC refused a source; the message has its log."""


def compile_file(folder: str, file: str, options: list[str]) -> bytes:
    """The cubin of ``folder/file``, which may include from ``folder``. Needs no GPU. Raises `CompileError`."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(Path(folder, file).read_text(encoding="utf-8"), file, [], [])
    try:
        nvrtc.compileProgram(program, [f"-I{folder}", *options])
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip()
        raise CompileError(f"{file} does not compile ({' '.join(options)}): {error}\n{log}") from None
    finally:
        nvrtc.destroyProgram(program)


def serve() -> None:
    """A line [folder, file, options] of JSON in, a line {"size"} or {"error"} out, and ``size`` bytes after it."""
    for line in sys.stdin.buffer:
        try:
            code, answer = compile_file(*json.loads(line)), {}
            answer["size"] = len(code)
        except CompileError as error:  # any other ends this process, and the caller compiles by itself
            code, answer = b"", {"error": str(error)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + code)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
