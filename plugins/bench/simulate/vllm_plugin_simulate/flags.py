"""The flags of ``bench simulate``, and what they make."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from vllm_core.commands import UsageError
from vllm_core.simulation import ALL
from vllm_plugin_simulate.collective import ALGORITHMS
from vllm_plugin_simulate.engine import Engine, step_tokens
from vllm_plugin_simulate.fleet import ROUTES
from vllm_plugin_simulate.hardware import Gpu, read_gpu, read_host, read_link
from vllm_plugin_simulate.memory import Limits
from vllm_plugin_simulate.requests import Sketch, read_trace, synthetic
from vllm_plugin_simulate.shapes import Shapes, read_shapes
from vllm_plugin_simulate.split import Split

__all__ = ["add_flags", "check", "engine_of", "limits_of", "names_of", "sketches_of"]

MOST_GPUS = 10_000
MOST_ENGINES = 64  # that are simulated one by one


def add_flags(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model and machine")
    model.add_argument("--model", metavar="MODEL", help="a name, a config.json or its folder; no weight is read")
    model.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="default: bfloat16"
    )
    model.add_argument("--hardware", default="h200", metavar="GPU", help="a name, or a .toml file; default: h200")
    model.add_argument("--link", default="nvlink4", metavar="LINK", help="within a host: a name, or 450GB/s,3us")
    model.add_argument("--network", default="ib400", metavar="LINK", help="between hosts; default: ib400")
    model.add_argument("--gpus-per-host", type=int, default=8, metavar="N", help="default: 8")
    model.add_argument(
        "--all-reduce", choices=("auto", *ALGORITHMS), default="auto", help="default: auto, the fastest for the size"
    )
    model.add_argument("--tensor-parallel-size", "-tp", type=int, default=1, metavar="N")
    model.add_argument("--pipeline-parallel-size", "-pp", type=int, default=1, metavar="N")
    model.add_argument("--data-parallel-size", "-dp", type=int, default=1, metavar="N")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--max-model-len", type=int, metavar="N", help="default: the longest request, at least 8,192")
    engine.add_argument("--max-num-seqs", type=int, default=256, metavar="N", help="default: 256")
    engine.add_argument("--max-num-batched-tokens", type=int, metavar="N", help="default: as the engine chooses")
    engine.add_argument("--gpu-memory-utilization", type=float, default=0.9, metavar="X", help="default: 0.9")
    engine.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    engine.add_argument("--async-scheduling", action=argparse.BooleanOptionalAction, default=True)
    engine.add_argument("--route", choices=tuple(ROUTES), default="least-loaded", help="how requests find an engine")
    engine.add_argument(
        "--simulated-engines", type=int, default=8, metavar="N", help="of more, a sample is simulated; default: 8"
    )
    _workload(parser.add_argument_group("workload"))
    plan = parser.add_argument_group("planning")
    plan.add_argument("--plan", action="store_true", help="find the fewest GPUs for --request-rate within the goals")
    plan.add_argument("--goal", nargs="+", default=[], metavar="FIGURE:MS", help="ttft:500 tpot:50 itl:100 e2el:9000")
    plan.add_argument("--goal-percentile", type=int, default=99, metavar="P", help="50, 90, 95 or 99; default: 99")
    plan.add_argument("--max-gpus", type=int, default=MOST_GPUS, metavar="N", help=f"default: {MOST_GPUS:,}")
    parser.add_argument("--validate", action="store_true", help="predictions beside all measured figures, and no more")
    parser.add_argument("--output-json", metavar="FILE", help="write all figures to this file")


def _workload(work: argparse._ArgumentGroup) -> None:
    work.add_argument("--workloads", metavar="NAMES", help="some of w1 to w6 of bench workloads, as in w1,w4")
    work.add_argument("--trace", metavar="FILE", help="a line of JSON each: arrival, input_tokens, output_tokens")
    work.add_argument("--request-rate", type=float, metavar="X", help="requests a second (Poisson), else all at once")
    work.add_argument("--num-prompts", type=int, metavar="N", help="requests; default: 256, or all of the trace")
    work.add_argument("--input-len", type=int, default=512, metavar="N", help="tokens in; default: 512")
    work.add_argument("--output-len", type=int, default=128, metavar="N", help="tokens out; default: 128")
    work.add_argument(
        "--random-range-ratio", type=float, default=0.0, metavar="X",
        help="lengths vary from length * (1 - X) to length * (1 + X)",
    )  # fmt: skip
    work.add_argument("--prefix-len", type=int, default=0, metavar="N", help="tokens all prompts begin with")
    work.add_argument("--seed", type=int, default=0, metavar="N", help="of arrivals and lengths; default: 0")


def check(args: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, and flags that do not go together."""
    least = {"gpus_per_host": 1, "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1}
    least |= {"max_model_len": 2, "max_num_seqs": 1, "max_num_batched_tokens": 1, "simulated_engines": 1}
    least |= {"num_prompts": 1, "input_len": 1, "output_len": 1, "prefix_len": 0, "max_gpus": 1}
    for name, low in least.items():
        if (value := getattr(args, name)) is not None and value < low:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {low}, not {value}")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise UsageError("--gpu-memory-utilization must be above 0 and at most 1")
    if not 0 <= args.random_range_ratio < 1:
        raise UsageError("--random-range-ratio must be at least 0 and below 1")
    if args.request_rate is not None and not args.request_rate > 0:
        raise UsageError("--request-rate must be above 0")
    if args.max_gpus > MOST_GPUS:
        raise UsageError(f"--max-gpus {args.max_gpus}: the simulation is meant for up to {MOST_GPUS:,} GPUs")
    if args.dtype == "float32":
        raise UsageError("--dtype float32: products in float32 were not measured.\n  instead bfloat16 or float16")
    if args.workloads and (args.trace or args.request_rate or args.num_prompts or args.plan):
        raise UsageError("--workloads bring their requests: leave --trace, --request-rate, --num-prompts, --plan out")
    if args.plan and (not args.request_rate or math.isinf(args.request_rate)):
        raise UsageError("--plan needs the load to plan for: --request-rate RATE")
    if args.goal and not args.plan:
        raise UsageError("--goal goes with --plan: a simulation alone has no goals to meet")
    if args.workloads and args.data_parallel_size > MOST_ENGINES:
        raise UsageError(
            f"--workloads simulate every engine: -dp may be {MOST_ENGINES} at most, not {args.data_parallel_size}.\n"
            "  instead --num-prompts with --input-len and --output-len, of which a sample is simulated"
        )
    gpus = args.tensor_parallel_size * args.pipeline_parallel_size * args.data_parallel_size
    if gpus > MOST_GPUS:
        raise UsageError(f"{gpus:,} GPUs were asked for; the simulation is meant for up to {MOST_GPUS:,}")
    if args.plan and gpus > 1:
        raise UsageError("--plan chooses the sizes itself: leave -tp, -pp and -dp out")


def names_of(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ALL]:
        raise UsageError(f"--workloads {unknown[0]}: there is no such workload; known are {', '.join(ALL)}")
    if not names:
        raise UsageError(f"--workloads names none; known are {', '.join(ALL)}")
    return names


def sketches_of(args: argparse.Namespace) -> Sequence[Sketch]:
    if args.trace:
        return read_trace(Path(args.trace), args.request_rate, args.num_prompts, args.seed)
    return synthetic(
        args.num_prompts or 256, args.request_rate or math.inf, args.input_len, args.output_len,
        ratio=args.random_range_ratio, prefix_len=args.prefix_len, seed=args.seed,
    )  # fmt: skip


def limits_of(args: argparse.Namespace, longest: int) -> tuple[Limits, Shapes, Gpu]:
    """``longest``: tokens of the longest request."""
    shapes, gpu = read_shapes(args.model), read_gpu(args.hardware)
    limits = Limits(
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens
        or max(step_tokens(shapes.parameters, gpu), args.max_num_seqs),
        max_model_len=args.max_model_len or max(min(8192, shapes.max_len), longest),
        gpu_memory_utilization=args.gpu_memory_utilization,
        enable_prefix_caching=args.enable_prefix_caching,
        async_scheduling=args.async_scheduling,
    )
    if limits.max_model_len > shapes.max_len:
        raise UsageError(f"{limits.max_model_len:,} tokens: {shapes.name} was made for {shapes.max_len:,}")
    return limits, shapes, gpu


def engine_of(args: argparse.Namespace, longest: int, tp: int, pp: int) -> Engine:
    limits, shapes, gpu = limits_of(args, longest)
    split = Split(
        tp=tp, pp=pp, link=read_link(args.link, "--link"), network=read_link(args.network, "--network"),
        gpus_per_host=args.gpus_per_host, all_reduce=args.all_reduce,
    )  # fmt: skip
    return Engine.of(shapes, gpu, read_host(), split, limits)
