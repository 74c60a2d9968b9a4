"""What a model takes of a device's memory, planned before anything is loaded, and what to do when it is too much.

What a process takes beside weights and cache is in `Beside`. Activations are counted from the layers' shapes
(`runner.activations`): a pass over the meta device would import torch's compiler, 0.8 s of each start.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.engine.cache.groups import pages_of_sequence
from vllm_core.engine.cache.longest import longest_sequence
from vllm_core.engine.micro_batches import steps_in_flight
from vllm_core.interfaces.cache import CachePlan
from vllm_core.interfaces.device import Device

__all__ = ["Beside", "Budget", "MemoryPlan", "MemoryPlanError", "Need", "memory_budget", "plan_memory", "shown"]

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
PLATFORM = "the platform's choice"


class MemoryPlanError(ValueError):
    """The device's memory does not hold the model, or the cache not one sequence of the length asked for."""


@attrs.frozen(kw_only=True)
class Beside:
    """Bytes of a device that are neither weights nor cache."""

    activations: int = 0  # of the largest step
    graphs: int = 0  # recorded steps, and the activations that are theirs
    process: int = 0  # what the driver and libraries take of each process
    max_step_tokens: int = 0  # for messages

    @property
    def total(self) -> int:
        return self.activations + self.graphs + self.process

    def by_purpose(self) -> dict[str, int]:
        """Those that are there."""
        sizes = {"activations": self.activations, "graphs": self.graphs, "process": self.process}
        return {name: size for name, size in sizes.items() if size}

    def shown(self) -> list[str]:
        parts = [f"activations {shown(self.activations)} ({self.max_step_tokens:,} tokens)"] if self.activations else []
        parts += [f"graphs {shown(self.graphs)}"] if self.graphs else []
        return parts + ([f"process {shown(self.process)}"] if self.process else [])


@attrs.frozen(kw_only=True)
class Budget:
    """What there is on one device, in bytes."""

    device: str  # for messages
    memory: int  # all of it that this process may use; 0: nobody knows
    weights: int
    cache: int  # for pages; negative: the weights are larger than the share
    source: str  # who says so: "kv_cache_memory", "gpu_memory_utilization", PLATFORM
    share: float = 0.0  # gpu_memory_utilization, if that is the source
    beside: Beside = Beside()

    @property
    def for_pages(self) -> int:
        """A platform's choice gives way to the weights; what the user said stays."""
        if self.source != PLATFORM or not self.memory:
            return max(self.cache, 0)
        return max(min(self.cache, self.memory - self.weights - self.beside.total), 0)

    def holds(self, cache: int) -> bool:
        """Whether weights, so much cache and what is beside them fit on the device at all."""
        return not self.memory or self.weights + self.beside.total + cache <= self.memory

    def with_share(self, share: float, weights: int) -> Budget:
        """The share is what the process takes of the device in all."""
        cache = int(self.memory * share) - weights - self.beside.total
        return attrs.evolve(self, share=share, weights=weights, cache=cache, source="gpu_memory_utilization")


NOTHING = Beside()


@attrs.frozen(kw_only=True)
class Need:
    """What decides how many pages there must be."""

    max_model_len: int
    max_rows: int
    max_step_tokens: int
    num_drafts: int
    stages: int = 1  # of a pipeline
    lookahead: int = 0  # tokens behind a sequence's last one that a proposer's cache has a place for
    narrower: str = ""  # a dtype of half the bytes that the device computes well

    def pages(self, caches: CachePlan, tokens: int) -> int:
        """Pages of one sequence, with as many steps in flight as there may be."""
        steps = steps_in_flight(self.stages) * self.max_step_tokens + self.lookahead
        return pages_of_sequence(caches, tokens, step_tokens=steps, num_drafts=self.num_drafts)


@attrs.frozen(kw_only=True)
class MemoryPlan:
    num_pages: int  # page 0, which nobody gets, included
    cache_bytes: int
    sequences: float  # of max_model_len that fit side by side
    budget: Budget


def memory_budget(
    settings: EngineSettings, platform: Any, device: Device, weights: int, beside: Beside = NOTHING, sharing: int = 1
) -> Budget:
    """Bytes for the cache: as many as the user says, or what a share of the device leaves, or the platform's choice.

    sharing   ranks between which the platform's choice is divided; ``device`` has the memory of one of them
    """
    share, asked = settings.gpu_memory_utilization, settings.kv_cache_memory
    if asked is not None and share is not None:
        raise SettingError(
            "kv_cache_memory and gpu_memory_utilization were both given: the first says how large the cache is, the"
            " second how much of the device it leaves; drop one of them"
        )
    budget = Budget(
        device=device.name or device.type,
        memory=device.memory,
        weights=weights,
        cache=platform.cache_memory(weights + beside.total) // sharing if asked is None else asked,
        source=PLATFORM if asked is None else "kv_cache_memory",
        beside=beside,
    )
    if share is None:
        return budget
    if not device.memory:
        raise SettingError(f"gpu_memory_utilization: nobody knows how much memory {budget.device} has")
    return budget.with_share(share, weights)


def plan_memory(
    caches: CachePlan, budget: Budget, need: Need, *, given: bool = True, num_pages: int | None = None
) -> MemoryPlan:
    """Pages within the budget, but no more than ``max_rows`` full sequences use.

    given       whether the user asked for ``max_model_len``; it only changes the error's words
    num_pages   if somebody has planned before, who knew more
    """
    if num_pages is not None:
        one = need.pages(caches, need.max_model_len) if caches.groups else 1
        size = num_pages * caches.bytes_per_page
        return MemoryPlan(num_pages=num_pages, cache_bytes=size, sequences=(num_pages - 1) / one, budget=budget)
    if not budget.holds(0):
        raise _too_large(caches, budget, need)
    if not caches.groups:
        return MemoryPlan(num_pages=1, cache_bytes=0, sequences=need.max_rows, budget=budget)
    one = need.pages(caches, need.max_model_len)
    have = budget.for_pages // caches.bytes_per_page - 1
    if have < one:
        raise _too_short(caches, budget, need, one, have, given)
    pages = min(have, need.max_rows * one) + 1
    size = pages * caches.bytes_per_page
    if not budget.holds(size):
        raise _too_large(caches, budget, need, cache=size)
    return MemoryPlan(num_pages=pages, cache_bytes=size, sequences=(pages - 1) / one, budget=budget)


def _too_large(caches: CachePlan, budget: Budget, need: Need, cache: int = 0) -> MemoryPlanError:
    what = "weights and cache together do" if cache else "the weights of this model do"
    return MemoryPlanError(
        f"{what} not fit on {budget.device} ({shown(budget.memory)}).\n  {_bill(budget, cache)}\n"
        + _advice(list(_starts(caches, budget, need)))
    )


def _too_short(caches: CachePlan, budget: Budget, need: Need, one: int, have: int, given: bool) -> MemoryPlanError:
    cache = shown(budget.for_pages)
    holds = longest_sequence(lambda tokens: need.pages(caches, tokens), have, need.max_model_len)
    return MemoryPlanError(
        f"{need.max_model_len:,} tokens of context{'' if given else ' (what the model was made for)'} do not fit "
        f"in {cache} of KV cache.\n  {_bill(budget)}\n"
        f"  one such sequence needs {one:,} pages of {caches.bytes_per_page:,} bytes = "
        f"{shown((one + 1) * caches.bytes_per_page)}; {cache} holds {holds:,} tokens\n"
        + _advice(list(_starts(caches, budget, need)))
    )


def _bill(budget: Budget, cache: int = 0) -> str:
    """Who gets what: one line."""
    parts = [f"weights {shown(budget.weights)}"]
    parts += budget.beside.shown()
    says = f"{budget.source} {budget.share:g}" if budget.share else budget.source
    parts.append(f"KV cache {shown(cache or budget.for_pages)} ({says})")
    return " | ".join(parts) + (f" | {budget.device} has {shown(budget.memory)}" if budget.memory else "")


def _advice(starts: list[str]) -> str:
    if not starts:
        return "  instead no single setting makes it fit: a smaller or quantized model, or more memory"
    return "  Any one of these starts:\n" + "\n".join(f"    {start}" for start in starts)


def _starts(caches: CachePlan, budget: Budget, need: Need) -> Iterator[str]:
    """Flags each of which makes it fit, by the arithmetic of ``plan_memory``."""

    def size(need: Need) -> int:
        return (need.pages(caches, need.max_model_len) + 1) * caches.bytes_per_page if caches.groups else 0

    def fits(budget: Budget, need: Need, shrink: int = 1) -> bool:
        cache = size(need) // shrink
        return budget.for_pages >= cache and budget.holds(cache)

    if caches.groups:
        have = budget.for_pages // caches.bytes_per_page - 1
        length = longest_sequence(lambda tokens: need.pages(caches, tokens), have, need.max_model_len)
        if 0 < length < need.max_model_len and fits(budget, attrs.evolve(need, max_model_len=length)):
            yield f"--max-model-len {length}"
        if not budget.share and fits(attrs.evolve(budget, cache=size(need), source="kv_cache_memory"), need):
            yield f"--kv-cache-memory {size(need)}"
        step = need.max_step_tokens // 2
        if step > need.num_drafts and fits(budget, attrs.evolve(need, max_step_tokens=step)):
            yield f"--max-num-batched-tokens {step}"  # a window's cache holds two steps' tokens beside the window
    if budget.share:
        share = ceil((budget.weights + budget.beside.total + size(need)) / budget.memory * 100) / 100
        if share <= 1 and fits(budget.with_share(share, budget.weights), need):
            yield f"--gpu-memory-utilization {share:g}"
    if need.narrower:  # weights and cache in half the bytes
        half = budget.weights // 2
        small = budget.with_share(budget.share, half) if budget.share else attrs.evolve(budget, weights=half)
        if fits(small, need, shrink=2):
            yield f"--dtype {need.narrower}"


def shown(size: int) -> str:
    """Bytes in words."""
    if size >= GiB:
        return f"{size / GiB:,.1f} GiB"
    return f"{size / MiB:,.0f} MiB" if size >= 10 * MiB else f"{size / KiB:,.1f} KiB"
