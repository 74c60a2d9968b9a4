"""The paths of the page that need no key: its files, each by its exact path."""

from __future__ import annotations

from vllm_plugin_server.page import FILES

__all__ = ["OPEN"]

OPEN = ("/", *(f"/page/{path.name}" for path in sorted(FILES.iterdir()) if path.name != "index.html"))
