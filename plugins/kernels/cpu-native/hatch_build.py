"""Compiles csrc/ into ``vllm_plugin_cpu_native/_native.so`` when a wheel or an editable install is built.

The library has a plain C interface and links neither Python nor torch: one wheel serves every
Python 3 of its platform. ``CXX`` names the compiler; the default is the first of c++, g++, clang++.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-std=c++20", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden"]
VECTORS = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mfma"]
SOURCES = {"supported.cpp": [], "team.cpp": [], "together.cpp": [], "api.cpp": VECTORS}  # file -> flags of its own


class NativeBuild(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        library = root / "vllm_plugin_cpu_native" / "_native.so"
        if not (sys.platform == "linux" and platform.machine() == "x86_64"):
            self.app.display_warning("vllm-plugin-cpu-native has kernels for Linux on x86-64 only: built without them")
        elif compiler := find_compiler():
            compile_library(compiler, root / "csrc", library)
            build_data["pure_python"] = False
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{tag}"
        else:
            self.app.display_warning(
                "no C++ compiler (CXX, c++, g++, clang++): vllm-plugin-cpu-native is built without its kernels"
            )


def find_compiler() -> str | None:
    return os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def compile_library(compiler: str, sources: Path, library: Path) -> None:
    """Compile, unless the library is newer than every source. A failing compiler ends the build with its messages."""
    newest = max(path.stat().st_mtime for path in [*sources.iterdir(), Path(__file__)])
    if library.exists() and library.stat().st_mtime > newest:
        return
    objects = []
    for name, own in SOURCES.items():
        made = library.with_name(f"{name}.o")
        subprocess.run([compiler, *FLAGS, *own, "-c", str(sources / name), "-o", str(made)], check=True)
        objects.append(made)
    # Beside its place, then moved: a process that has the old one mapped keeps it whole.
    fresh = library.with_suffix(".new")
    subprocess.run([compiler, "-shared", "-pthread", *map(str, objects), "-o", str(fresh)], check=True)
    fresh.replace(library)
    for made in objects:
        made.unlink()
