"""Every extension point of vllm-core. Importing this package imports no torch.

``MODULES`` names the modules with the specifications, ``HOOKS`` says for each hook where its
specification stands and what is known about it. docs/hooks.md is generated from both.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import attrs

__all__ = ["ASKED", "HOOKS", "MODULES", "HookInfo"]

GROUPS: Final = {
    "plugins": ("provides", "settings"),
    "models": ("models", "model", "model_config", "model_processor", "bundled_models"),
    "weights": ("weight_format", "quantization_method"),
    "attention": ("attention_backend", "kv_cache_layout", "rope_variant"),
    "experts": ("moe_router", "expert_kernel"),
    "kernels": ("op_kernel", "mixer_kernel"),
    "sampling": ("draft_proposer", "sampler", "logits_processor", "grammar_backend", "pooler"),
    "parsers": ("tool_parser", "reasoning_parser"),
    "text": ("tokenizer", "chat_renderer"),
    "media": ("media_loader", "media_processor"),
    "devices": ("platform", "executor"),
    "distributed": ("collective", "all_to_all", "kv_connector"),
    "adapters": ("adapter_method", "adapter_resolver"),
    "service": ("scheduler_policy", "http_endpoints", "cli_commands", "metrics_sink"),
}
"""The files of this package, in the order of the documentation, and the hooks in each."""

LISTINGS: Final = frozenset({"provides", "settings", "models", "bundled_models", "http_endpoints", "cli_commands"})
"""Hooks without a query: every plugin is asked once, and all answers count."""

SETTLED: Final = frozenset(
    {
        "provides", "models", "weight_format", "attention_backend", "rope_variant", "draft_proposer", "platform",
        "tool_parser", "reasoning_parser", "grammar_backend",
    }
)  # fmt: skip
"""Hooks with at least two implementations. All others are provisional: they may still change."""


ASKED: Final = frozenset(
    {
        "provides", "settings", "models", "model", "bundled_models", "weight_format", "quantization_method",
        "attention_backend", "kv_cache_layout", "rope_variant", "op_kernel", "draft_proposer", "tokenizer",
        "chat_renderer", "platform", "executor", "scheduler_policy", "cli_commands", "sampler", "logits_processor",
        "tool_parser", "reasoning_parser", "metrics_sink", "grammar_backend", "http_endpoints", "collective",
    }
)  # fmt: skip
"""Hooks that this version asks. What a plugin offers through another one is shown as unused, never silently so."""


@attrs.frozen(kw_only=True)
class HookInfo:
    """What is known about a hook besides its docstring."""

    name: str
    file: str  # module below vllm_core.hookspecs
    listing: bool  # no query; the answers of all plugins together are the result
    provisional: bool  # fewer than two implementations: outside the public-API snapshot
    asked: bool  # by this version

    @property
    def module(self) -> str:
        return f"{__name__}.{self.file}"


MODULES: Final = tuple(f"{__name__}.{file}" for file in GROUPS)
"""Dotted names of the modules to give to ``pluggy.PluginManager.add_hookspecs``."""

HOOKS: Final = MappingProxyType(
    {
        name: HookInfo(
            name=name, file=file, listing=name in LISTINGS, provisional=name not in SETTLED, asked=name in ASKED
        )
        for file, names in GROUPS.items()
        for name in names
    }
)
