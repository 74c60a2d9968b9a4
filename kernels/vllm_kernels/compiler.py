"""CUDA C++ to machine code by NVRTC, once a machine: the results lie on disk under what they were made from."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from vllm_kernels.nvrtc import CompileError, compile_file

__all__ = ["SOURCES", "CompileError", "cache_folder", "compile_source", "machine_code", "options_of", "source_digest"]

SOURCES = Path(__file__).parent / "cuda"
_INCLUDE = re.compile(rb'^\s*#include\s+"([^"]+)"', re.MULTILINE)
_OPTIONS = ("-std=c++17", "--device-as-default-execution-space")
PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "cupy-cuda13x", "cupy-cuda12x")
_DIGEST = hashlib.sha256().digest_size


def compile_source(file: str, arch: str, options: list[str]) -> bytes:
    """Compile now. Needs no GPU. Raises `CompileError`."""
    return compile_file(str(SOURCES), file, [f"-arch=sm_{arch}", *options])


def machine_code(
    file: str,
    arch: str,
    defines: Mapping[str, str | int] | None = None,
    compile: Callable[[str, str, list[str]], bytes] | None = None,
) -> bytes:
    """The cubin of ``cuda/<file>`` for ``arch`` ("90a"), from the cache or made now.

    Kept under a digest of the source with all that it includes, the defines, the architecture and
    the compiler's version, in $VLLM_KERNELS_CACHE or ~/.cache/vllm_kernels. A kept file begins with
    the digest of its content: one that was cut short or changed is made anew.
    """
    options = options_of(defines)
    kept = cache_folder() / f"{Path(file).stem}-{arch}-{source_digest(file, arch, options)[:24]}.cubin"
    if (code := _read(kept)) is not None:
        return code
    code = (compile or compile_source)(file, arch, options)
    _keep(kept, code)
    return code


def options_of(defines: Mapping[str, str | int] | None) -> list[str]:
    return [*_OPTIONS, *(f"-D{name}={value}" for name, value in sorted((defines or {}).items()))]


def cache_folder() -> Path:
    named = os.environ.get("VLLM_KERNELS_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vllm_kernels"


def source_digest(file: str, arch: str, options: list[str]) -> str:
    digest = hashlib.sha256(repr((file, arch, options, _compiler_version())).encode())
    for part in sorted(_sources(file)):
        digest.update((SOURCES / part).read_bytes())
    return digest.hexdigest()


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
    """Of the packages, where NVRTC is one: loading it takes longer than reading all that lies in the cache."""
    found = {name: version for name in PACKAGES if (version := _installed(name))}
    if any("nvrtc" in name for name in found):
        return repr(found)
    from cupy_backends.cuda.libs import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> bytes | None:
    """What `_keep` wrote, if it is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    """Whole or not at all, whoever else writes it; a cache that cannot be written is no error."""
    made = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
            made = f.name
            f.write(hashlib.sha256(code).digest() + code)
        os.replace(made, path)
    except OSError:
        if made is not None:
            with suppress(OSError):
                os.unlink(made)
