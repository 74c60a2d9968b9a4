"""Errors about plugins: what failed, whose it is, why, and what would work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["Ambiguous", "LockMismatch", "NoOffer", "PluginError", "PolicyError", "nearest", "owner"]


class PluginError(Exception):
    """One line that says what failed, then a line for each fact known.

    ``facts`` are labels with one text or several, printed in the order given; empty ones are left
    out. Labels in use: by, why, known, instead, settle, install.
    """

    def __init__(self, title: str, **facts: str | Sequence[str]) -> None:
        self.title = title
        self.facts = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in facts.items() if v}
        super().__init__(self.text())

    def text(self) -> str:
        lines = [self.title]
        for label, texts in self.facts.items():
            for i, text in enumerate(texts):
                lines.append(f"  {label if i == 0 else '':<7} " + text.replace("\n", "\n" + " " * 10))
        return "\n".join(lines)


class PolicyError(PluginError):
    """A mistake in allow, block, require or prefer."""


class NoOffer(PluginError):
    """Nobody offers what is needed."""


class Ambiguous(PluginError):
    """Several offers are equally good and nothing says which to take."""


class LockMismatch(PluginError):
    """What is installed differs from what the lock was made with."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like ``name``, or ""."""
    from difflib import get_close_matches

    known = sorted(set(known))
    by_lower = {k.lower(): k for k in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``'; did you mean "x"?'`` or ""."""
    found = nearest(name, known)
    return f'; did you mean "{found}"?' if found else ""


def owner(distribution: str, version: str, name: str = "", module: str = "") -> str:
    """``vllm-plugin-x 0.2.1, entry point x = vllm_plugin_x``."""
    entry = f", entry point {name} = {module}" if name and module else ""
    return f"{distribution} {version}{entry}"
