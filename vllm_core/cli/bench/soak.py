"""``vllm-core bench soak MODEL``"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import attrs

from vllm_core.cli.bench.engine import add_flags, check_counts, engine, settings
from vllm_core.cli.bench.figures import busy, table
from vllm_core.cli.bench.growth import MemorySamples
from vllm_core.cli.bench.mix import Mix
from vllm_core.cli.bench.peers.measure import Others
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.bench.soak_load import Load
from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings

__all__ = ["Soak"]

LENGTH = 8192  # tokens of the longest sequence, unless another is asked for
MiB = 1 << 20
MEMORY = {
    "resident_bytes": "resident",
    "device_allocated_bytes": "torch has allocated",
    "device_reserved_bytes": "torch has reserved",
    "device_used_by_all_bytes": "device, all processes",
}


class Soak:
    """A mixed load for minutes: does anything fail, is anything lost, does memory grow?"""

    about = (
        "Puts a mixed load on the engine for some minutes: prompts of one token to the longest sequence, greedy and "
        "sampled, with penalties, log-probabilities, stop strings and several outputs, shared prefixes, requests that "
        "are aborted, bursts of more than may run, and a cache that is too small for all of them at times. Memory of "
        "the processes and of the device is sampled each second; its growth a minute is fitted after a warm-up. "
        "The exit code is 1 if a request failed, or a cache page or row was not free at the end."
    )
    examples = (
        ("bench soak ./my-model", "8 minutes"),
        ("bench soak ./my-model --minutes 30 --output-json soak.json", ""),
        ("bench soak ./my-model --requests 200", "until 200 requests have come"),
        ("bench soak ./my-model --gpu-memory-utilization 0.85", "with all the cache that fits, not a small one"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument(
            "--minutes", type=float, metavar="X", help="how long requests come; default: 8, with --requests any time"
        )
        work.add_argument("--requests", type=int, metavar="N", help="how many requests come; default: any number")
        work.add_argument(
            "--warm-up-minutes", type=float, metavar="X",
            help="minutes that the fit of memory leaves out; default: a quarter of the time",
        )  # fmt: skip
        work.add_argument(
            "--cache-sequences", type=int, metavar="N",
            help="size of the cache, in sequences of the longest length; default: one for 16 requests that run at the "
            "same time, at least 2. --kv-cache-memory or --gpu-memory-utilization go before it",
        )  # fmt: skip
        add_output_flag(work)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        for name in ("minutes", "requests", "cache_sequences"):
            if getattr(args, name) is not None and getattr(args, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {getattr(args, name)}")
        minutes = 8.0 if args.minutes is None and args.requests is None else args.minutes
        if args.warm_up_minutes is not None:
            check_counts(args, warm_up_minutes=0)
            if minutes is not None and args.warm_up_minutes >= minutes:
                raise UsageError(f"--warm-up-minutes must be below the {minutes:g} minutes of --minutes")
        kept(args)
        wanted = _sized(settings(args, prefix_caching=True), args.cache_sequences)
        with engine(wanted) as llm:
            result = _measure(llm, minutes, args.requests, args.warm_up_minutes) | record(llm)
        _print(result)
        write(args, result)
        return 1 if result["problems"] else 0


def _sized(wanted: EngineSettings, sequences: int | None) -> EngineSettings:
    """With the longest sequence and a cache that is too small at times, unless the user said otherwise."""
    from vllm_core.engine.find import find
    from vllm_core.engine.fit import fit
    from vllm_core.engine.model_limits import choose_max_model_len

    given = wanted.kv_cache_memory is not None or wanted.gpu_memory_utilization is not None
    if given and sequences is not None:
        raise UsageError("--cache-sequences goes without --kv-cache-memory and --gpu-memory-utilization")
    found = find(wanted, {})
    if wanted.max_model_len is None:
        wanted = attrs.evolve(wanted, max_model_len=min(LENGTH, choose_max_model_len(None, found.config)))
    if given:
        return wanted
    rows = found.settings.max_rows
    memory = fit(attrs.evolve(found, settings=attrs.evolve(wanted, max_num_seqs=rows))).memory
    pages = memory.num_pages - 1
    if not pages:
        return wanted
    one = -(-pages // memory.sequences)  # pages of the longest sequence
    count = sequences or max(2, rows // 16)
    return attrs.evolve(wanted, kv_cache_memory=int(count * one + 1) * (memory.cache_bytes // memory.num_pages))


def _measure(llm: Any, minutes: float | None, requests: int | None, warm_up: float | None) -> dict[str, Any]:
    from vllm_core.engine.local import LocalEngine

    mix = Mix(
        vocab_size=llm.built.capacity.vocab_size, longest=llm.built.max_model_len, rows=llm.built.capacity.max_rows,
        text=llm.built.tokenizer is not None, max_logprobs=llm.settings.max_logprobs, seed=llm.settings.seed,
    )  # fmt: skip
    load = Load(local := LocalEngine.of(llm.built), mix)
    begin = time.monotonic()

    def over(came: int) -> bool:
        late = minutes is not None and time.monotonic() - begin >= 60 * minutes
        return late or (requests is not None and came >= requests)

    others = Others()
    with MemorySamples() as memory:
        load.run(over)
    seconds = time.monotonic() - begin
    left_out = seconds / 4 if warm_up is None else 60 * warm_up
    stats, counts = local.core.cache.stats(), load.counts
    return {
        "minutes": seconds / 60,
        "requests": {key: counts[key] for key in ("came", "done", "aborted", "refused", "failed")},
        "counts": dict(counts),
        "evicted_pages": stats.evictions,
        "free_pages": local.core.cache.num_free,
        "pages": local.core.cache.pool.num_pages - 1,
        "output_tokens_per_second": counts["output_tokens"] / seconds,
        "output_tokens_per_second_by_minute": _by_minute(load.tokens, seconds),
        "warm_up_seconds": left_out,
        "growth": memory.growth(left_out),
        "memory_samples": memory.samples,
        "failures": load.failures,
        "problems": _problems(counts),
        "cores_of_others": others.cores(),
    }


def _by_minute(tokens: Mapping[int, int], seconds: float) -> list[float]:
    """Output tokens a second, of the requests that ended in each minute; the last one may be short."""
    return [tokens.get(i, 0) / min(60.0, seconds - 60 * i) for i in range(math.ceil(seconds / 60))]


def _problems(counts: dict[str, int]) -> list[str]:
    found = []
    if counts["failed"]:
        found.append(f"{counts['failed']} requests failed")
    if counts["lost_pages"]:
        found.append(f"{counts['lost_pages']} cache pages were not free when nothing ran")
    if counts["lost_rows"]:
        found.append(f"{counts['lost_rows']} rows were not free when nothing ran")
    return found


def _print(result: dict[str, Any]) -> None:
    counts, requests = result["counts"], result["requests"]
    print(
        f"Soak: {requests['came']:,} requests in {result['minutes']:.1f} minutes, {requests['done']:,} done, "
        f"{requests['aborted']:,} aborted, {requests['failed']:,} failed"
        + (f", {requests['refused']:,} refused by a full queue" if requests["refused"] else "")
    )
    rows = {
        "tokens": f"{counts['prompt_tokens']:,} in ({counts['cached_tokens']:,} from the cache), "
        f"{counts['output_tokens']:,} out, {counts['steps']:,} steps",
        "output tokens/s": f"{result['output_tokens_per_second']:,.0f}; each minute "
        + " ".join(f"{rate:,.0f}" for rate in result["output_tokens_per_second_by_minute"]),
        "at once": f"{counts['most_at_once']:,} requests at most, {counts['phases_burst']} bursts",
        "preemptions": f"{counts['preemptions']:,}, of {counts['preempted_requests']:,} requests; "
        f"{result['evicted_pages']:,} cached pages evicted",
        "pages": f"{result['free_pages']:,} of {result['pages']:,} free at the end; "
        f"looked at {counts['looks_for_losses']} times",
    }
    rows |= {MEMORY[kind]: _grown(found) for kind, found in result["growth"].items()}
    print(table(rows))
    for failure in result["failures"]:
        print(f"  {failure}")
    print("Problems: " + ", ".join(result["problems"]) if result["problems"] else "No problem was found.", flush=True)
    if warning := busy(result["cores_of_others"]):
        print(warning, file=sys.stderr)


def _grown(found: dict[str, Any]) -> str:
    begin, end = found["window_seconds"]
    range_ = f"{found['least'] / MiB:,.0f} to {found['most'] / MiB:,.0f} MiB from second {begin:.0f} to {end:.0f}"
    if found["bytes_per_minute"] is None:
        return f"{range_}; {found['samples']} samples are too few for a fit"
    grows, error = found["bytes_per_minute"] / MiB, found["standard_error"] / MiB
    return f"{grows:+.3f} MiB a minute (standard error {error:.3f}, {found['samples']} samples); {range_}"
