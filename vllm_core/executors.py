"""What plugins build executors from: ranks elsewhere, what is said to them, and what to make of how they end.

An executor starts a process for each rank of ``build.model.layout`` (`Layout`), and gives each a `Rank` with a `Start`
that ``build.recipe`` and ``build.num_pages`` go into. It encodes a `Step` for all of them and hands on the `Result` of
``layout.speaker``. `Failed`, or the end of a process, is a `Report`; `blame` makes the sentence that ends the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_core.distributed.blame import Place, Report, blame
from vllm_core.distributed.elsewhere import Elsewhere
from vllm_core.distributed.layout import Layout
from vllm_core.distributed.messages import Failed, Result, Start, Started, Step, decode_down, decode_up, encode
from vllm_core.interfaces.executor import Capacity, StepError

if TYPE_CHECKING:
    from vllm_core.distributed.rank import Rank, failed, open_store

__all__ = [
    "Capacity", "Elsewhere", "Failed", "Layout", "Place", "Rank", "Report", "Result", "Start", "Started", "Step",
    "StepError", "blame", "capacity_of", "decode_down", "decode_up", "encode", "failed", "open_store",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What imports torch, where ranks run."""
    if name in ("Rank", "failed", "open_store"):
        from vllm_core.distributed import rank

        return getattr(rank, name)
    raise AttributeError(f"vllm_core.executors has no {name!r}")


def capacity_of(build: Any, started: dict[int, Started]) -> Capacity:
    """What an executor's ``start`` returns when all ranks have started."""
    speaker = started[build.model.layout.speaker]
    return Capacity(
        caches=build.caches,
        num_pages=build.num_pages,
        max_rows=build.max_rows,
        num_drafts=build.model.num_drafts,
        vocab_size=speaker.vocab_size,
        lookahead=speaker.lookahead,
        stages=build.model.layout.pp,
        memory={name: max(s.memory.get(name, 0) for s in started.values()) for name in speaker.memory},
        timings={name: max(s.timings.get(name, 0.0) for s in started.values()) for name in speaker.timings},
    )
