"""``vllm-core bench step``: what a step of decoding rows costs the host. No model and no device run."""

from __future__ import annotations

import argparse
import time
from typing import Any

from vllm_core.cli.bench.figures import spread
from vllm_core.cli.bench.progress import progress
from vllm_core.cli.bench.record import add_output_flag, environment, kept, write
from vllm_core.cli.errors import UsageError

__all__ = ["Step", "measure"]

BLOCK = 16  # tokens a cache page
LONGEST = 2048  # tokens a row
MOST_ROWS = 8192
MOST_STEPS = LONGEST - 200
MOST_DRAFTS = 64
STAGES = ("schedule", "retire", "prepare")
_ABOUT = """Decoding rows that always go on, one step ahead, on one core. Milliseconds a step:
  schedule  which rows run, their pages, the plan
  retire    taking in the sampled ids of a step
  prepare   the rows' changes and the inputs that the model reads, on the CPU"""


class Step:
    """Median milliseconds of the three stages that a step needs on the host."""

    about = _ABOUT
    examples = (
        ("bench step", "256 rows, without drafts and with 3"),
        ("bench step --max-num-seqs 1024 --num-drafts 0", "1,024 rows"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--max-num-seqs", type=int, default=256, metavar="N", help="decoding rows; default: 256")
        parser.add_argument("--num-drafts", default="0,3", metavar="A,B", help="drafts a row and step; default: 0,3")
        parser.add_argument("--num-iters", type=int, default=300, metavar="N", help="steps; default: 300")
        add_output_flag(parser)

    def run(self, args: argparse.Namespace) -> int:
        kept(args)
        if not 1 <= args.max_num_seqs <= MOST_ROWS:
            raise UsageError(f"--max-num-seqs must be from 1 to {MOST_ROWS:,}")
        if not 1 <= args.num_iters <= MOST_STEPS:
            raise UsageError(f"--num-iters must be from 1 to {MOST_STEPS:,}: rows of {LONGEST:,} tokens are full then")
        drafts = [int(item) if item.strip().isdecimal() else -1 for item in args.num_drafts.split(",")]
        if not all(0 <= n <= MOST_DRAFTS for n in drafts):
            raise UsageError(f"--num-drafts must be from 0 to {MOST_DRAFTS}, as in 0,3, not {args.num_drafts!r}")
        found = {}
        for n in drafts:
            with progress(f"{n} drafts", args.num_iters) as tick:
                stages = measure(args.max_num_seqs, n, args.num_iters, tick)
            found[str(n)] = {stage: spread(values) for stage, values in stages.items()}
            medians = {stage: found[str(n)][stage]["median"] for stage in STAGES}
            shown = ", ".join(f"{stage} {value:.3f}" for stage, value in medians.items())
            print(f"{args.max_num_seqs} rows, {n} drafts: {shown}; together {sum(medians.values()):.3f} ms a step")
        write(args, {"milliseconds": found, "rows": args.max_num_seqs, "steps": args.num_iters, **environment()})
        return 0


def measure(num_rows: int, drafts: int, steps: int, tick: Any = lambda: None) -> dict[str, list[float]]:
    """Milliseconds of each step, by stage."""
    import numpy as np
    import torch

    from vllm_core.engine.cache import table_widths
    from vllm_core.interfaces.steps import StepResult
    from vllm_core.runner.inputs import prepare
    from vllm_core.runner.rows import Rows

    torch.set_num_threads(1)
    plan, scheduler = _scheduler(num_rows, drafts)
    widths = table_widths(plan, max_model_len=LONGEST, num_drafts=drafts)
    rows = Rows(num_rows, LONGEST, drafts, [BLOCK], torch.device("cpu"), widths)
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    flights = [scheduler.schedule()]
    for _ in range(steps):
        sampled = np.full((num_rows, 1 + drafts), -1, dtype=np.int32)  # every draft is wrong
        sampled[:, 0] = 7
        begin = time.perf_counter()
        flights.append(scheduler.schedule())  # one step ahead, as the overlapped loop is
        scheduled = time.perf_counter()
        rows.apply(flights[-1].plan)
        prepare(flights[-1].plan, rows)
        prepared = time.perf_counter()
        scheduler.retire(StepResult(step=flights.pop(0).plan.step, token_ids=sampled))
        retired = time.perf_counter()
        for stage, seconds in zip(STAGES, (scheduled - begin, retired - prepared, prepared - scheduled), strict=True):
            found[stage].append(1e3 * seconds)
        tick()
    return found


def _scheduler(num_rows: int, drafts: int) -> tuple[Any, Any]:
    """A scheduler with all rows taken, and the plan of its one cache."""
    from vllm_core.engine.cache import CacheManager
    from vllm_core.engine.request import Request
    from vllm_core.engine.scheduler import Scheduler
    from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache
    from vllm_core.interfaces.steps import RowSampling

    spec = FullAttentionCache(num_kv_heads=1, k_dim=4, v_dim=4, dtype="float32")
    groups = (CacheGroup(index=0, spec=spec, names=("a",), block_size=BLOCK),)
    plan = CachePlan(groups=groups, page_bytes=32 * BLOCK, num_tensors=1)
    cache = CacheManager(plan, num_rows * LONGEST // BLOCK + 2, max_model_len=LONGEST, num_drafts=drafts)
    scheduler = Scheduler(
        cache, num_drafts=drafts, max_rows=num_rows, max_num_seqs=num_rows,
        max_num_batched_tokens=64 * num_rows, max_model_len=LONGEST,
    )  # fmt: skip
    for i in range(num_rows):
        length = 32 + i % BLOCK  # so that rows fill their pages in different steps
        request = Request(
            request_id=str(i), token_ids=[i] * length, num_prompt=length,
            sampling=RowSampling(), stop_ids=frozenset([2]), max_total=LONGEST - 1,
        )  # fmt: skip
        scheduler.roster.add(request)
    return plan, scheduler
