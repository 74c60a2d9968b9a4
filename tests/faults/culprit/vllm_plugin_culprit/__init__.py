"""A plugin with every hook, which goes wrong where it is told to (`fault`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from vllm_core.hookspecs import ASKED, HOOKS
from vllm_core.plugin import Offer, Provides, Rank, hookimpl
from vllm_plugin_culprit.fault import strike

HOOK_API = 1
OFFERS = tuple(filter(None, os.environ.get("CULPRIT_OFFERS", "").split(",")))  # hooks; of the others it says nothing


def answer(hook: str) -> Any:
    if hook == "provides":
        return [Provides(name, "culprit") for name in sorted(ASKED) if not HOOKS[name].listing]
    if HOOKS[hook].listing:
        return None if hook == "settings" else []
    return (
        Offer(name="culprit", target=f"vllm_plugin_culprit.targets:{hook}", rank=Rank.TUNED) if hook in OFFERS else None
    )


def implementation(hook: str) -> Callable[..., Any]:
    def listed() -> Any:
        return strike(f"ask:{hook}", answer(hook))

    def asked(query: Any) -> Any:
        if hook == "op_kernel" and getattr(query, "op", "rms_norm") != "rms_norm":
            return None
        return strike(f"ask:{hook}", answer(hook))

    made = listed if HOOKS[hook].listing else asked
    made.__name__ = hook
    return hookimpl(made)


globals().update({hook: implementation(hook) for hook in sorted(ASKED)})
