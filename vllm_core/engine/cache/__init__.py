"""The KV cache's bookkeeping on the host: which pages each sequence has in every cache group. No torch.

How the scheduler uses it, in the order of a request's life (all lengths in tokens):

    manager = CacheManager(plan, num_pages, max_model_len=..., prefix_caching=..., num_drafts=K)

    open(seq_id, tokens, salt=, extra_keys=, encoder_tokens=, encoder_key=)
        Make a sequence known; it owns nothing yet. ``tokens`` is the request's own list of ids:
        the engine appends what was sampled, the manager only reads it.
    admit(seq_id, budget=0, parent_id=, shared=) -> Admission | None
        Reuse the longest cached prefix, or what a running parent has computed of ``shared`` common
        tokens (partial blocks by copy), and take pages for up to ``budget`` tokens behind it.
        None: too few free pages, nothing was taken. Goes into ``RowInit``.
    reserve(seq_id, num_tokens) -> list[Growth] | None
        Before each step: a place for tokens up to ``num_tokens``, the upper bound of the cache
        length after the step, drafts included. ``PageGrowth(row, *growth)`` for each. None: too
        few free pages, nothing was taken; preempt another sequence, or wait for a step to retire
        while ``num_waiting`` pages are on their way back.
    take_copies() -> list[PageCopy]
        Once a step, after everything else was planned and right before ``launched``.
    launched(step, seq_ids)
        The step runs with these sequences. Steps count upwards.
    retired(step)
        No device works on this step any more.
    advance(seq_id, num_computed)
        A step's result was learned (``tokens`` already has the new ids): so many cache entries
        are there for certain. Full blocks get their names, blocks behind the window are freed.
        Not for sequences that were released or closed meanwhile.
    release(seq_id)
        Preemption: give up all pages. The sequence stays known; ``admit`` it again later.
    close(seq_id)
        The request ended, in whatever way: give up all pages and forget the sequence.
    fork(parent_id, child_id, tokens, budget=0) -> Admission | None
        ``open`` with the parent's salt and keys, and ``admit`` beside it, in one.
    rollback(seq_id, num_computed, budget=0) -> Admission | None
        Forget entries from position ``num_computed`` on; ``tokens`` may differ from there on.
        (Rejected drafts need no such call: rows step back on the device.)
    trim(seq_id, num_tokens)
        Give back pages reserved beyond ``num_tokens``.

Pages that a sequence gives up return to the pool when the last step launched with it has retired.
"""

from vllm_core.engine.cache.grouping import owner_names, plan_caches
from vllm_core.engine.cache.hashing import ExtraKey
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.cache.sequence import Admission, Growth
from vllm_core.engine.cache.sizing import CachePlanError
from vllm_core.engine.cache.stats import CacheStats
from vllm_core.engine.cache.table import table_widths

__all__ = [
    "Admission",
    "CacheManager",
    "CachePlanError",
    "CacheStats",
    "ExtraKey",
    "Growth",
    "owner_names",
    "plan_caches",
    "table_widths",
]
