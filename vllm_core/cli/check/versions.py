"""With what a check was made."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from vllm_core import __version__
from vllm_core.plugin import HOOK_API
from vllm_core.plugins.source import read_hook_api

if TYPE_CHECKING:
    from vllm_core.cli.check.subject import Subject

__all__ = ["versions"]


def versions(subject: Subject, device: str) -> dict[str, str]:
    apis = {str(read_hook_api(plugin.file) or "none") for plugin in subject.plugins if plugin.file}
    found = {
        "vllm-core": __version__,
        subject.name: subject.version,
        "HOOK_API": f"{', '.join(sorted(apis)) or 'none'} (this core: {HOOK_API})",
        "Python": platform.python_version(),
    }
    for name in ("torch", "transformers", "pytest"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "device": device or f"CPU ({platform.machine()})", "system": platform.platform(terse=True)}
