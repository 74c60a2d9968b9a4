"""The platform "stub". Importing this module must not import torch."""

from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.plugin import Offer, Provides, Rank, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("platform", "stub", "a device that computes on the CPU")]


@hookimpl
def platform(query: PlatformQuery) -> Offer | None:
    if query.name != "stub":  # a real accelerator answers "auto", too
        return None
    return Offer(name="stub", target="vllm_plugin_stub.platform:StubPlatform", rank=Rank.TUNED)
