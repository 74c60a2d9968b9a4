"""Settings of a plugin that nobody explains. Imports no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vllm_core.config.declared import declared
from vllm_core.plugin import load_target

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog
    from vllm_core.plugins.records import PluginStatus

__all__ = ["undocumented"]


def undocumented(catalog: Catalog, plugin: PluginStatus, readme: str) -> tuple[list[str], list[str]]:
    """Names of all its settings, and what is wrong: one without a help text, or that the README does not name.

    The README may write ``workspace_mib`` or ``workspace-mib``.
    """
    targets = [listed.entry for listed in catalog.entries("settings") if listed.plugin == plugin.name]
    settings = [setting for target in targets for setting in declared(load_target(target)).values()]
    wrong = [f"{setting.name} has no help text" for setting in settings if not setting.help.strip()]
    for setting in settings:
        name = setting.name.replace("_", "[-_]")
        if not re.search(rf"(?<![\w]){name}(?![\w])", readme):
            wrong.append(f"the README does not name {setting.name}")
    return [setting.name for setting in settings], wrong
