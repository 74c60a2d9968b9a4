"""What a package says about itself, and settings that nobody explains. Imports no torch."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from vllm_core.config.declared import declared
from vllm_core.plugin import load_target

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog
    from vllm_core.plugins.records import PluginStatus

__all__ = ["checkout", "pages", "readme", "undocumented"]


def checkout(installed: Distribution) -> Path | None:
    """The folder that a distribution was installed from with ``pip install -e``; None for others."""
    try:
        made = json.loads(installed.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    folder = Path(unquote(urlsplit(made.get("url", "")).path))
    return folder if made.get("dir_info", {}).get("editable") and folder.is_dir() else None


def readme(installed: Distribution) -> str:
    """The long description, as its metadata holds it."""
    metadata: Any = installed.metadata  # email.message.Message
    found = metadata.get("Description") or metadata.get_payload()
    return re.sub(r"^ {8}", "", str(found or ""), flags=re.MULTILINE).strip()


def pages(installed: Distribution) -> str:
    """Its README, and of a checkout all pages."""
    folder = checkout(installed)
    files = sorted([*folder.glob("*.md"), *folder.glob("docs/**/*.md")]) if folder is not None else []
    return "\n".join([readme(installed), *(file.read_text(encoding="utf-8") for file in files)])


def undocumented(catalog: Catalog, plugin: PluginStatus, text: str) -> tuple[list[str], list[str]]:
    """Names of all its settings, and what is wrong: one without a help text, or that the README does not name.

    ``text``, its README and other pages, may write ``workspace_mib`` or ``workspace-mib``.
    """
    targets = [listed.entry for listed in catalog.entries("settings") if listed.plugin == plugin.name]
    settings = [setting for target in targets for setting in declared(load_target(target)).values()]
    wrong = [f"{setting.name} has no help text" for setting in settings if not setting.help.strip()]
    for setting in settings:
        name = setting.name.replace("_", "[-_]")
        if not re.search(rf"(?<![\w]){name}(?![\w])", text):
            wrong.append(f"the README does not name {setting.name}")
    return [setting.name for setting in settings], wrong
