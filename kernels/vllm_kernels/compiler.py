"""CUDA C++ to machine code by NVRTC, once a machine: the results lie on disk under what they were made from."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "cuda"
_INCLUDE = re.compile(rb'^\s*#include\s+"([^"]+)"', re.MULTILINE)
_OPTIONS = ("-std=c++17", "--use_fast_math=false", "--device-as-default-execution-space")


class CompileError(RuntimeError):
    """NVRTC refused a source; the message has its log."""


def machine_code(file: str, arch: str, defines: Mapping[str, str | int] | None = None) -> bytes:
    """The cubin of ``cuda/<file>`` for ``arch`` ("90a"), from the cache or made now.

    Kept under a digest of the source with all that it includes, the defines, the architecture and
    the compiler's version, in $VLLM_KERNELS_CACHE or ~/.cache/vllm_kernels.
    """
    options = [*_OPTIONS, *(f"-D{name}={value}" for name, value in sorted((defines or {}).items()))]
    digest = hashlib.sha256(repr((file, arch, options, _compiler_version())).encode())
    for part in sorted(_sources(file)):
        digest.update((SOURCES / part).read_bytes())
    kept = cache_folder() / f"{Path(file).stem}-{arch}-{digest.hexdigest()[:24]}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    code = compile_source(file, arch, options)
    _keep(kept, code)
    return code


def compile_source(file: str, arch: str, options: list[str]) -> bytes:
    """Compile now. Needs no GPU. Raises ``CompileError``."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram((SOURCES / file).read_text(encoding="utf-8"), file, [], [])
    try:
        nvrtc.compileProgram(program, [f"-arch=sm_{arch}", f"-I{SOURCES}", *options])
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip()
        raise CompileError(f"{file} does not compile for sm_{arch} ({' '.join(options)}): {error}\n{log}") from None
    finally:
        nvrtc.destroyProgram(program)


def cache_folder() -> Path:
    named = os.environ.get("VLLM_KERNELS_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vllm_kernels"


def _sources(file: str) -> set[str]:
    """The file and what it includes, and so on; names relative to the folder of sources."""
    found, new = set(), {file}
    while new:
        name = new.pop()
        found.add(name)
        new |= {m.decode() for m in _INCLUDE.findall((SOURCES / name).read_bytes())} - found
    return found


@cache
def _compiler_version() -> str:
    from cupy_backends.cuda.libs import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def _keep(path: Path, code: bytes) -> None:
    """Whole or not at all, whoever else writes it; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
            f.write(code)
        os.replace(f.name, path)
    except OSError:
        return
