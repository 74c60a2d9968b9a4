"""Whether FlashInfer is here and could compile its kernels, found out without importing it or torch."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from packaging.specifiers import SpecifierSet

KNOWN = ">=0.6,<0.8"  # versions whose plan and kernel were read

INSTALL = f"pip install 'flashinfer-python{KNOWN}' ninja, and a CUDA toolkit"


def missing() -> str:
    """What stands in the way; "" if nothing does."""
    try:
        found = version("flashinfer-python")
    except PackageNotFoundError:
        return "the package flashinfer-python is not installed"
    if not SpecifierSet(KNOWN, prereleases=True).contains(found):
        return f"flashinfer-python {found} is installed, and this plugin knows versions {KNOWN}"
    if find_spec("flashinfer_jit_cache") is not None:  # kernels compiled beforehand
        return ""
    if not _nvcc():
        return "FlashInfer compiles its kernels with nvcc, which is not on PATH, in CUDA_HOME or in /usr/local/cuda"
    if not shutil.which("ninja"):
        return "FlashInfer compiles its kernels with ninja, which is not on PATH"
    return ""


def _nvcc() -> bool:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return (Path(home) / "bin" / "nvcc").is_file()
    return shutil.which("nvcc") is not None or Path("/usr/local/cuda/bin/nvcc").is_file()
