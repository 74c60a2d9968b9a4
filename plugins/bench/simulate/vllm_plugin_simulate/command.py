"""``vllm-core bench simulate``"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import attrs

from vllm_core.commands import UsageError
from vllm_core.simulation import TITLES
from vllm_plugin_simulate import flags, plan, validate
from vllm_plugin_simulate.engine import Engine
from vllm_plugin_simulate.figures import figures, shown
from vllm_plugin_simulate.fleet import simulate
from vllm_plugin_simulate.goals import read_goals
from vllm_plugin_simulate.memory import GiB, splits
from vllm_plugin_simulate.workloads import run_workloads, shortest_fitting

__all__ = ["Simulate"]

PLANNED = 2  # times as many requests as run at once: so many are simulated for each rate of a plan


class Simulate:
    about = (
        "Predicts throughput and latency of an engine, or of many behind a router, on GPUs that need not be here: the "
        "real scheduler runs in simulated time, and a step takes what it reads, multiplies and sends. "
        "docs/scaling.md says how, and how far off it was."
    )
    examples = (
        ("bench simulate --model llama-3.1-8b --workloads w1,w4", "one H200, the workloads of bench workloads"),
        ("bench simulate --model ./my-model -tp 2 -dp 4 --request-rate 40 --input-len 1000 --output-len 300", ""),
        ("bench simulate --model llama-3.1-70b -tp 8 --trace requests.jsonl --output-json result.json", ""),
        ("bench simulate --model llama-3.1-70b --request-rate 200 --plan --goal ttft:2000 tpot:50", "how many GPUs?"),
        ("bench simulate --validate", "predictions beside what was measured"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        flags.add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        if args.output_json and not Path(args.output_json).resolve().parent.is_dir():
            raise UsageError(f"there is no folder for {args.output_json}\n  where   --output-json")
        if args.validate:
            rows = validate.validate(args.link, args.network)
            print(validate.shown(rows))
            _write(args, {"validation": [attrs.asdict(one) | {"error": one.error} for one in rows]})
            return 0
        flags.check(args)
        if not args.model:
            raise UsageError("no model was named.\n  instead --model NAME, or --model PATH/TO/config.json")
        if args.plan:
            return _plan(args)
        if args.workloads:
            names = flags.names_of(args.workloads)
            engine = _engine(args, shortest_fitting(names))
            found = run_workloads(engine, names, args.data_parallel_size)
            for name, one in found.items():
                print(f"  {name} {TITLES[name]:<30} {one['value']:,.4g} {one['unit']}")
            _write(args, {"workloads": found, **_facts(engine)})
            return 0
        sketches = flags.sketches_of(args)
        engine = _engine(args, max(one.input_tokens + one.output_tokens for one in sketches))
        engine.check(sketches)
        run = simulate(
            engine.replica, sketches, engines=args.data_parallel_size, most=args.simulated_engines, route=args.route,
            seed=args.seed,
        )  # fmt: skip
        result = figures(run, engine.split.gpus * args.data_parallel_size)
        print(shown(result))
        _write(args, result | _facts(engine))
        return 0


def _engine(args: argparse.Namespace, longest: int) -> Engine:
    engine = flags.engine_of(args, longest, args.tensor_parallel_size, args.pipeline_parallel_size)
    _tell(engine)
    print(f"memory of a GPU: {engine.memory.bill}, {engine.memory.tokens:,} tokens", file=sys.stderr)
    return engine


def _tell(engine: Engine) -> None:
    gpu = engine.gpu
    if not gpu.measured:
        print(f"{gpu.name}: figures of a {gpu.source}; no prediction for it was validated.", file=sys.stderr)
    if engine.split.gpus > 1:
        print("Several GPUs an engine: links are not validated, see docs/scaling.md.", file=sys.stderr)


def _plan(args: argparse.Namespace) -> int:
    goals = read_goals(args.goal, args.goal_percentile)
    sketches = flags.sketches_of(args)
    longest = max(one.input_tokens + one.output_tokens for one in sketches)
    base = flags.engine_of(args, longest, *_smallest(args, longest))
    base.check(sketches)
    pairs = [
        (tp, pp)
        for tp, pp in splits(base.shapes, base.gpu, base.limits, min(64, args.max_gpus))
        if tp <= args.gpus_per_host and tp * pp <= max(8, 4 * base.split.gpus)
    ]
    if not pairs:
        raise UsageError(f"{base.shapes.name} needs {base.split.gpus} GPUs; --max-gpus allows {args.max_gpus}")
    engines = [flags.engine_of(args, longest, tp, pp) for tp, pp in pairs]
    _tell(engines[-1])
    at = plan.load_of(sketches, max(len(sketches), PLANNED * args.max_num_seqs), args.seed)

    def tick(what: str) -> None:
        print(f"simulating {what} ...", file=sys.stderr, flush=True)

    found = plan.options(engines, args.request_rate, at, goals, args.max_gpus, tick)
    print(plan.shown(found))
    _write(args, {"options": [attrs.asdict(one) | {"gpus": one.gpus} for one in found], **_facts(base)})
    return 0 if not found[0].why_not else 1


def _smallest(args: argparse.Namespace, longest: int) -> tuple[int, int]:
    """The fewest GPUs on which the model fits at all, if any: else the error of one says what is wrong."""
    limits, shapes, gpu = flags.limits_of(args, longest)
    return next(splits(shapes, gpu, limits), (1, 1))


def _facts(engine: Engine) -> dict[str, Any]:
    """What was simulated, for the result."""
    memory = attrs.asdict(engine.memory)
    return {
        "model": attrs.asdict(engine.shapes),
        "hardware": attrs.asdict(engine.gpu),
        "host": attrs.asdict(engine.host),
        "split": attrs.asdict(engine.split) | {"layers": engine.time.stages},
        "limits": attrs.asdict(engine.limits),
        "memory": memory | {"cache_gib": round(engine.memory.cache / GiB, 1)},
    }


def _write(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.output_json:
        Path(args.output_json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {args.output_json}", file=sys.stderr)
