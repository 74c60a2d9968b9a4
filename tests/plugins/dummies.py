"""Distributions made on the spot, and catalogs without any distribution."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from vllm_core.plugin import HOOK_API, Offer, Refusal, hookimpl
from vllm_core.plugins.catalog import Catalog, offering
from vllm_core.plugins.policy import Policy
from vllm_core.plugins.records import PluginStatus

_serial = itertools.count()

MODEL = """
HOOK_API = 1
from vllm_core.plugin import ModelEntry, hookimpl

@hookimpl
def models():
    return [ModelEntry("{architecture}", "{module}_model:Model")]
"""

BACKEND = """
HOOK_API = 1
from vllm_core.plugin import Offer, Provides, Rank, hookimpl

@hookimpl
def provides():
    return [Provides("attention_backend", "{offer}", "a dummy")]

@hookimpl
def attention_backend(query):
    return Offer(name="{offer}", target="{module}_impl:Backend", rank=Rank.{rank})
"""


class Site:
    """A folder like site-packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        source: str | None = MODEL,
        *,
        distribution: str = "",
        version: str = "1.0",
        requires: str = "vllm-core>=0.1",
        module: str = "",
        **fields: str,
    ) -> str:
        """Write a distribution with one plugin; returns the module's name, which no other test uses.

        ``source`` is a template with {module} and ``fields``; None leaves the module out.
        """
        distribution = distribution or f"dummy-{name}"
        module = module or f"dummy_{next(_serial)}_{id(self)}_{name.replace('-', '_')}"
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\nRequires-Dist: {requires}\n\nText\n"
        )
        info.joinpath("entry_points.txt").write_text(f"[vllm_core.plugins]\n{name} = {module}\n")
        if source is not None:
            values = {
                "module": module,
                "architecture": f"{name}ForCausalLM",
                "offer": name,
                "rank": "PORTABLE",
                **fields,
            }
            for key, value in values.items():
                source = source.replace("{" + key + "}", value)
            self.folder.joinpath(f"{module}.py").write_text(source)
        return module


def status(catalog: Catalog, name: str) -> PluginStatus:
    """The one row of that name."""
    (row,) = [p for p in catalog.plugins if p.name == name]
    return row


def catalog_of(*plugins: dict[str, Any], policy: Policy | None = None) -> Catalog:
    """A catalog of plugins in memory.

    Each is ``{"name": ..., "version": ..., hook: answer or function, ..., "lists": ["kind:name", ...]}``;
    without "lists" the names of its offers and refusals are listed.
    """
    policy = policy or Policy()
    rows, listings = [], {}
    for plugin in plugins:
        plugin = dict(plugin)
        name, version, lists = plugin.pop("name"), plugin.pop("version", "1.0"), plugin.pop("lists", None)
        models = plugin.pop("models", [])
        module = ModuleType(f"memory_{next(_serial)}_{name.replace('-', '_')}")
        module.HOOK_API = HOOK_API
        for hook, answer in plugin.items():
            setattr(module, hook, _implementation(hook, answer))
        sys.modules[module.__name__] = module
        if lists is None:
            lists = [f"{hook}:{a.name}" for hook, a in plugin.items() if isinstance(a, Offer | Refusal) and a.name]
        pairs = [tuple(item.split(":")) for item in lists] + [("model", entry.architecture) for entry in models]
        listings[name] = {"models": models}
        rows.append(
            PluginStatus(
                name=name,
                distribution=f"dist-{name}",
                version=version,
                module=module.__name__,
                state="active",
                provides=tuple(offering(policy, k, n) for k, n in pairs),
            )
        )
    catalog = Catalog(rows, listings, policy)
    catalog.import_modules()
    assert all(p.state == "active" for p in catalog.plugins), catalog.plugins
    return catalog


def _implementation(hook: str, answer: Any) -> Any:
    def implementation(query):
        if isinstance(answer, Exception):
            raise answer
        return answer(query) if callable(answer) else answer

    implementation.__name__ = hook
    return hookimpl(implementation)
