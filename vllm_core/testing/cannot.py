"""What tested plugins cannot do, told at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

__all__ = ["CannotReport"]


class CannotReport:
    """A pytest plugin: prints what tested plugins cannot do.

    With pytest-xdist tests are collected in workers, which print nothing; there ``-rs`` shows it.
    """

    name = "vllm-core-cannot"

    def __init__(self) -> None:
        self.lines: dict[str, None] = {}

    @classmethod
    def note(cls, config: pytest.Config, kit: str, cannot: Mapping[str, str]) -> None:
        plugin = config.pluginmanager.get_plugin(cls.name)
        if plugin is None:
            plugin = cls()
            config.pluginmanager.register(plugin, cls.name)
        plugin.lines.update({f"{kit} cannot: {what} ({why})": None for what, why in cannot.items()})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.lines:
            terminalreporter.section("what tested plugins cannot do")
            for line in self.lines:
                terminalreporter.write_line(line)
