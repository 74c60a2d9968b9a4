"""``vllm-core bench trace MODEL``"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import attrs

from vllm_core.cli.bench.engine import add_flags, check_counts, check_fits, engine, generate, settings
from vllm_core.cli.bench.figures import table
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.bench.workload import random_workload
from vllm_core.cli.engine_flags import engine_settings
from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings

__all__ = ["Span", "Trace", "idle"]

SHOWN = 12  # kernels


class Trace:
    """What the device does while a batch decodes, and how long it waits in between."""

    about = (
        "Traces a CUDA device with torch's profiler while a batch decodes: how much of the time it works, the gaps "
        "between kernels, and which kernels take the time. The prompts and the first half of the outputs are left "
        "out, so that all requests decode in what is counted. --no-async-scheduling shows the loop without overlap, "
        "--both one after the other."
    )
    examples = (
        ("bench trace ./my-model --batch-size 256", "256 requests decoding together"),
        ("bench trace ./my-model --batch-size 1 --no-async-scheduling", "one stream, each step waited for"),
        ("bench trace ./my-model --batch-size 256 --both", "what the device waits without overlap, and with it"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument("--input-len", type=int, default=128, metavar="N", help="random tokens in; default: 128")
        work.add_argument("--output-len", type=int, default=64, metavar="N", help="tokens out; default: 64")
        work.add_argument("--batch-size", type=int, default=8, metavar="N", help="requests at once; default: 8")
        work.add_argument("--both", action="store_true", help="without overlap of host and device, then with it")
        add_output_flag(work)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        check_counts(args, input_len=1, output_len=4, batch_size=1)
        kept(args)
        wanted = settings(args)
        if not _has_cuda():
            raise UsageError(
                "bench trace: there is no CUDA device to trace.\n  instead bench step, for the host's part"
            )
        if not args.both:
            result = _measure(args, wanted)
            _print(result)
        else:
            if (loaded := engine_settings(args)).sources["async_scheduling"] != "default":
                given = loaded.sources["async_scheduling"]
                raise UsageError(f"--both measures async_scheduling off and on, so it cannot be given ({given})")
            parts = {}
            for name, overlap in (("without overlap", False), ("with overlap", True)):
                part = parts[name] = _measure(args, attrs.evolve(wanted, async_scheduling=overlap))
                print(f"{name}:")
                _print(part)
            result = {name.replace(" ", "_"): part for name, part in parts.items()}
            _print_both(parts)
        write(args, result)
        return 0


def _measure(args: argparse.Namespace, wanted: EngineSettings) -> dict[str, Any]:
    with engine(wanted) as llm:
        work = random_workload(
            args.batch_size, args.input_len, args.output_len,
            vocab_size=llm.built.capacity.vocab_size, seed=llm.settings.seed,
        )  # fmt: skip
        check_fits(llm, work.prompts(0), work.output_lens)
        generate(llm, work.prompts(-1), work.output_lens, text=False)
        spans = _traced(lambda: generate(llm, work.prompts(0), work.output_lens, text=False))
        return summary(spans[len(spans) // 2 :]) | {"workload": work.facts} | record(llm)


@attrs.frozen
class Span:
    """A kernel or copy on the device."""

    name: str
    start: float  # microseconds
    stop: float


def idle(spans: Sequence[Span]) -> list[float]:
    """Microseconds in which nothing ran, gap after gap. ``spans`` in the order of their starts; they may overlap."""
    gaps, end = [], spans[0].start
    for span in spans:
        if span.start > end:
            gaps.append(span.start - end)
        end = max(end, span.stop)
    return gaps


def summary(spans: Sequence[Span]) -> dict[str, Any]:
    total = max(span.stop for span in spans) - spans[0].start
    gaps = idle(spans)
    times: dict[str, list[float]] = defaultdict(list)
    for span in spans:
        times[span.name].append(span.stop - span.start)
    kernels = sorted(times.items(), key=lambda item: -sum(item[1]))
    return {
        "microseconds": total,
        "busy_share": 1 - sum(gaps) / total,
        "idle_share": sum(gaps) / total,
        "idle_us": sum(gaps),
        "gaps": len(gaps),
        "longest_gap_us": max(gaps, default=0.0),
        "gaps_over_20_us": sum(gap > 20 for gap in gaps),
        "kernels": [{"name": name, "count": len(each), "microseconds": sum(each)} for name, each in kernels],
    }


def _traced(work: Any) -> list[Span]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    found = [
        Span(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return sorted(found, key=lambda span: span.start)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _print(result: dict[str, Any]) -> None:
    rows = {
        "traced": f"{result['microseconds'] / 1e3:.2f} ms",
        "working": f"{result['busy_share']:.1%} of it",
        "longest gap": f"{result['longest_gap_us']:.0f} us; {result['gaps_over_20_us']} of more than 20 us",
    }
    print(table(rows))
    for kernel in result["kernels"][:SHOWN]:
        each = kernel["microseconds"] / kernel["count"]
        print(f"{kernel['microseconds'] / 1e3:10.3f} ms  {kernel['count']:6d} x {each:8.2f} us  {kernel['name'][:70]}")


def _print_both(parts: dict[str, dict[str, Any]]) -> None:
    """Before and after."""
    rows = {
        "idle": [f"{part['idle_share']:.1%}" for part in parts.values()],
        "idle, ms": [f"{part['idle_us'] / 1e3:.2f}" for part in parts.values()],
        "gaps over 20 us": [f"{part['gaps_over_20_us']:,}" for part in parts.values()],
        "longest gap, us": [f"{part['longest_gap_us']:,.0f}" for part in parts.values()],
        "traced, ms": [f"{part['microseconds'] / 1e3:.2f}" for part in parts.values()],
    }
    print(f"\n{'':16}" + "".join(f"{name:>18}" for name in parts))
    for name, cells in rows.items():
        print(f"{name:16}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
