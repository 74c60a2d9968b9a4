"""What a start finds that an earlier one has left: compiled kernels, and files in the system's memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["drop", "fresh_caches"]

FOLDERS = tuple(Path(__file__).with_name("kernel_caches.txt").read_text().split())
"""Variables that say where libraries and peers keep what they have compiled."""

_OTHERS = re.compile(r"VLLM_\w*CACHE\w*|\w+_CACHE_DIR")
_DOWNLOADS = re.compile(r"HF_|HUGGINGFACE|TRANSFORMERS_|PIP_|UV_")


def fresh_caches(folder: str | Path) -> dict[str, str]:
    """Variables of an environment in which every cache of kernels is a folder below this one; downloads stay."""
    named = {name for name in os.environ if _OTHERS.fullmatch(name) and not _DOWNLOADS.match(name)}
    env = {name: str(Path(folder) / name.lower()) for name in (*FOLDERS, *sorted(named))}
    for path in env.values():
        Path(path).mkdir(exist_ok=True)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return env | {"HF_HOME": os.environ.get("HF_HOME") or os.path.join(home, "huggingface")}


def drop(files: Sequence[Path]) -> bool:
    """Ask the system to forget what it has of these files in memory. Whether it could be asked."""
    if not files or not hasattr(os, "posix_fadvise"):
        return False
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
