"""``vllm-core plugins list | show | new``. Importing this imports no plugin."""

from __future__ import annotations

from vllm_core.plugin import Command

__all__ = ["Plugins"]

_HERE = "vllm_core.cli.plugins"


class Plugins:
    """A group of commands: what is installed, and what an author of plugins needs."""

    about = "Plugins: what is installed, which of it is used and why, and a package to begin a new one with."

    default = "list"

    commands = (
        Command("list", f"{_HERE}.listing:List", "which plugins are used, which are not and why, and their offers"),
        Command("show", f"{_HERE}.listing:Show", "all about one plugin, its settings too"),
        Command("check", "vllm_core.cli.check:Check", "what one passes of its conformance kit, as a report"),
        Command("new", f"{_HERE}.new:New", "a package for a new plugin that works, with its tests"),
    )
