"""vLLM's arguments that we lack: what to use instead, or why there is none.

The table is data (vllm_names.toml), so that this code names no feature.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from pathlib import Path

from vllm_core.config.errors import did_you_mean

__all__ = ["explain_unknown", "vllm_names"]


@functools.cache
def vllm_names() -> dict[str, str]:
    """Argument of vLLM: one sentence on what takes its place here."""
    return tomllib.loads(Path(__file__).with_name("vllm_names.toml").read_text(encoding="utf-8"))


def explain_unknown(name: str, known: Iterable[str]) -> str:
    """What to add to an "is not known" message: the replacement for vLLM's name, or the nearest match."""
    field = name.lstrip("-").replace("-", "_")
    note = vllm_names().get(field) or vllm_names().get(field.removeprefix("no_"))
    return f", though vLLM has it.\n  instead {note}" if note else did_you_mean(name, known)
