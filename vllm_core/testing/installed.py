"""A plugin as it is installed: what it answers, and whether the core would take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from vllm_core.config.plugins import plugin_settings
from vllm_core.plugin import Offer, Refusal
from vllm_core.plugins import Decision, Selector, load_catalog, read_policy
from vllm_core.plugins.records import kind_of
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light

__all__ = ["Installed", "InstalledConformance"]


class Installed:
    """The active plugin that lists ``name`` for a hook.

    settings   of the plugin, as in [plugin.NAME]
    """

    def __init__(self, hook: str, name: str, settings: Mapping[str, Any] | None = None) -> None:
        self.hook, self.name = hook, name
        self.catalog = load_catalog(read_policy({}))
        kind = kind_of(hook)
        owners = [p for p in self.catalog.active if any((o.kind, o.name) == (kind, name) for o in p.provides)]
        if not owners:
            raise self.catalog.nobody(kind, name)
        self.plugin = owners[0]
        self.catalog.settings = plugin_settings(self.catalog, {self.plugin.name: settings} if settings else {})

    def answer(self, query: Any) -> Offer | Refusal | None:
        """What the plugin itself says, whoever else would be taken. What it raises, this raises."""
        for plugin, call in self.catalog.implementations(self.hook):
            if plugin.name == self.plugin.name:
                return call(query=query, settings=self.catalog.settings.get(plugin.name))
        raise AssertionError(f'plugin {self.plugin.label} lists "{self.name}" and does not implement {self.hook}')

    def choose(self, query: Any, named: str | None = None) -> Decision:
        """As an engine chooses."""
        return Selector(self.catalog).choose(self.hook, query, self.name if named is None else named)


class InstalledConformance(Conformance):
    """The base of kits whose subject is an offer with a name.

    plugin_settings   of the plugin, as in [plugin.NAME]
    """

    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def installed(cls) -> Installed:
        return Installed(cls.hook, cls.named(), cls.plugin_settings)

    def test_the_plugin_module_imports_without_torch(self, installed: Installed) -> None:
        assert_imports_light(installed.plugin.module)
