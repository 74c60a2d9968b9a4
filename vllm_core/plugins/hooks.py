"""Calling hooks of imported plugins one by one, so that every answer has an owner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pluggy

from vllm_core.plugin import hookimpl
from vllm_core.plugins.deprecated import gathered, warn
from vllm_core.plugins.errors import PluginError, did_you_mean
from vllm_core.plugins.lines import printable
from vllm_core.plugins.records import PluginStatus

__all__ = ["Hooks", "make_manager"]


def make_manager() -> pluggy.PluginManager:
    """A pluggy manager that knows every hook of vllm-core."""
    from vllm_core.hookspecs import MODULES

    manager = pluggy.PluginManager("vllm_core")
    for module in MODULES:
        manager.add_hookspecs(import_module(module))
    return manager


class Hooks:
    """Imported plugins, registered with pluggy under their entry-point names."""

    def __init__(self) -> None:
        self._manager = make_manager()
        self._status: dict[str, PluginStatus] = {}

    def register(self, status: PluginStatus) -> str:
        """Import a plugin here, in this process. Returns why it failed, or ""."""
        try:
            plugin = import_module(status.module)
            with gathered() as deprecated:
                self._manager.register(_uncovered(plugin), name=status.name)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            return printable(f"importing it raised {type(error).__name__}: {error}")
        self._status[status.name] = status
        warn(status.label, deprecated)
        return ""

    def implementations(self, hook: str) -> list[tuple[PluginStatus, Callable[..., Any]]]:
        """Each plugin's function for a hook; called with names, it gets those it declares."""
        caller = getattr(self._manager.hook, hook, None)
        if caller is None:
            known = [name for name in vars(self._manager.hook) if not name.startswith("_")]
            raise PluginError(f'there is no hook "{hook}"{did_you_mean(hook, known) or "."}')
        found = [
            (self._status[impl.plugin_name], _by_name(impl.function, impl.argnames))
            for impl in caller.get_hookimpls()
            if impl.plugin_name in self._status
        ]
        found.sort(key=lambda pair: pair[0].name)  # the order has no meaning, but should be the same every time
        return found


def _uncovered(plugin: ModuleType) -> Any:
    """The plugin with the hooks that modules of its own hide: importing pkg.model sets pkg's attribute ``model``."""
    marked = hookimpl.functions.get(plugin.__name__, {})
    hidden = {name: f for name, f in marked.items() if isinstance(vars(plugin).get(name), ModuleType)}
    return SimpleNamespace(**{**vars(plugin), **hidden}) if hidden else plugin


def _by_name(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        return function(**{name: arguments[name] for name in names})

    return call
