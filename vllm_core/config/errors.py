"""What is wrong with a setting, and where it stood."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["SettingError", "did_you_mean"]


class SettingError(ValueError):
    """A setting that does not exist or has a wrong value. The message says where it stood."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``'; did you mean "max_model_len"?'`` or ""."""
    by_lower = {k.lower(): k for k in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[found[0]]}"?' if found else ""
