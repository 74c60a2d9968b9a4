"""How many cache pages there are, and what to do when they are too few."""

from __future__ import annotations

import attrs

from vllm_core.engine.cache.groups import pages_of_sequence
from vllm_core.engine.cache.longest import longest_sequence
from vllm_core.interfaces.cache import CachePlan

KiB, MiB = 1 << 10, 1 << 20


class MemoryPlanError(ValueError):
    """The cache does not hold one sequence of the length asked for."""


@attrs.frozen(kw_only=True)
class MemoryPlan:
    num_pages: int  # page 0, which nobody gets, included
    cache_bytes: int
    tokens: int  # of one sequence that owned them all, at most max_model_len


def plan_memory(
    caches: CachePlan,
    *,
    cache_bytes: int,
    max_model_len: int,
    max_rows: int,
    max_step_tokens: int,
    num_drafts: int,
    given: bool,
) -> MemoryPlan:
    """Pages for ``cache_bytes``, but no more than ``max_rows`` full sequences use.

    given   whether the user asked for ``max_model_len``; it only changes the error's words.
    """

    def needed(tokens: int) -> int:
        return pages_of_sequence(caches, tokens, step_tokens=2 * max_step_tokens, num_drafts=num_drafts)

    if not caches.groups:
        return MemoryPlan(num_pages=1, cache_bytes=0, tokens=max_model_len)
    have = cache_bytes // caches.bytes_per_page - 1
    one = needed(max_model_len)
    if have < one:
        fits = longest_sequence(needed, have, max_model_len)
        need_bytes = (one + 1) * caches.bytes_per_page
        starts = [f"    --kv-cache-memory {need_bytes}"]
        if fits:
            starts.insert(0, f"    --max-model-len {fits}")
        raise MemoryPlanError(
            f"{max_model_len:,} tokens of context{'' if given else ' (what the model was made for)'} do not fit "
            f"in {_shown(cache_bytes)} of KV cache.\n"
            f"  one such sequence needs {one:,} pages of {caches.bytes_per_page:,} bytes = "
            f"{_shown(need_bytes)}\n"
            "  Any one of these starts:\n" + "\n".join(starts)
        )
    pages = min(have, max_rows * one) + 1
    return MemoryPlan(num_pages=pages, cache_bytes=pages * caches.bytes_per_page, tokens=max_model_len)


def _shown(size: int) -> str:
    return f"{size / MiB:,.0f} MiB" if size >= 10 * MiB else f"{size / KiB:,.1f} KiB"
