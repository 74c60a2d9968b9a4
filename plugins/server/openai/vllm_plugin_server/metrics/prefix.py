"""The switch that renames all figures: what stands before each name."""

from __future__ import annotations

import re

__all__ = ["DEFAULT", "check_prefix"]

DEFAULT = "vllm:"
_ALLOWED = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,63}|")


def check_prefix(prefix: str) -> str:
    """``prefix`` if names that begin with it are names for Prometheus, else ``ValueError``."""
    if not _ALLOWED.fullmatch(prefix):
        raise ValueError(
            f"--metrics-prefix {prefix!r} cannot begin a metric's name: letters, digits, '_' and ':' can, at most 64, "
            f"and no digit first; vLLM's is {DEFAULT!r}"
        )
    return prefix
