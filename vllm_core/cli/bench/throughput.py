"""``vllm-core bench throughput MODEL``"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from vllm_core.cli.bench import versus
from vllm_core.cli.bench.compare import compare
from vllm_core.cli.bench.engine import add_flags, check_counts, check_fits, engine, generate, settings
from vllm_core.cli.bench.figures import busy, percentiles, spread, table
from vllm_core.cli.bench.peers.measure import Others
from vllm_core.cli.bench.progress import requests_bar
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.bench.workload import Workload, from_file, random_workload
from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings

__all__ = ["Throughput"]


class Throughput:
    """All requests at once; tokens and requests a second."""

    about = (
        "Gives a batch of requests to the engine at once and measures what gets done. Greedy, every output as "
        "long as asked for, prefix caching off unless it is asked for. A run is repeated with other random "
        "ids; figures are of the median run. Any setting of the engine works."
    )
    examples = (
        ("bench throughput ./my-model", "32 requests of 128 + 128 tokens"),
        ("bench throughput ./my-model --num-prompts 200 --input-len 512 --output-json result.json", ""),
        ("bench throughput ./my-model --dataset-path prompts.txt --output-len 64", "a prompt a line"),
        ("bench throughput ./my-model --vs vllm --vs-python ~/vllm/bin/python", "beside vLLM, in one run"),
        ("bench throughput ./my-model --compare batch-invariant", "what a setting costs: off, then on, in one run"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument(
            "--dataset-name", "--dataset", choices=("random", "custom"), help="default: random, or custom with a path"
        )
        work.add_argument("--dataset-path", metavar="FILE", help="prompts: .txt a line each, .json a list, .jsonl")
        work.add_argument("--num-prompts", type=int, default=32, metavar="N", help="requests; default: 32")
        work.add_argument("--input-len", type=int, default=128, metavar="N", help="random tokens in; default: 128")
        work.add_argument("--output-len", type=int, default=128, metavar="N", help="tokens out; default: 128")
        work.add_argument(
            "--random-range-ratio", type=float, default=0.0, metavar="X",
            help="lengths vary from length * (1 - X) to length * (1 + X); default: 0",
        )  # fmt: skip
        work.add_argument("--prefix-len", type=int, default=0, metavar="N", help="tokens all prompts begin with")
        work.add_argument("--disable-detokenize", action="store_true", help="make no text of the tokens")
        work.add_argument("--num-iters", type=int, default=3, metavar="N", help="measured runs; default: 3")
        work.add_argument("--num-iters-warmup", type=int, default=1, metavar="N", help="runs before; default: 1")
        work.add_argument(
            "--compare",
            metavar="SETTING",
            help="measure with this setting off, then on: batch-invariant, enforce-eager, ...; or with two executors:"
            " distributed-executor-backend=in-process,mp",
        )
        add_output_flag(work)
        versus.add_flags(parser)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        check_counts(args, num_prompts=1, input_len=1, output_len=1, num_iters=1, num_iters_warmup=0, prefix_len=0)
        if not 0 <= args.random_range_ratio < 1:
            raise UsageError("--random-range-ratio must be at least 0 and below 1")
        if (args.dataset_name == "custom") != (args.dataset_path is not None) and args.dataset_name is not None:
            raise UsageError("--dataset-path goes with --dataset-name custom, and with nothing else")
        kept(args)
        wanted = settings(args)
        peer = versus.find_peer(args)
        if args.compare is not None:
            if peer:
                raise UsageError("--compare goes without --vs")
            write(args, compare(args.compare, wanted, lambda wanted, flag: _alone(args, wanted), _figures))
            return 0
        with engine(wanted) as llm:
            work = _workload(args, llm)
            check_fits(llm, work.prompts(0), work.output_lens)
            result = _measure(args, llm, work)
            _print(result)
            job = versus.streams(llm, work) if peer else {}
            if peer:
                result["one_stream"] = versus.own_streams(llm, job)
            result |= record(llm)
        if peer:
            result["versus"] = versus.compare(args, peer, result, work, job)
        write(args, result)
        return 0


def _alone(args: argparse.Namespace, wanted: EngineSettings) -> dict[str, Any]:
    """The batch, then one stream."""
    with engine(wanted) as llm:
        work = _workload(args, llm)
        check_fits(llm, work.prompts(0), work.output_lens)
        result = _measure(args, llm, work)
        _print(result)
        return result | {"one_stream": versus.own_streams(llm, versus.streams(llm, work))} | record(llm)


def _figures(found: dict[str, Any]) -> dict[str, float | None]:
    return {
        "output tokens/s": found["output_tokens_per_second"],
        "first token, p50 s": found["first_token_seconds"].get("p50"),
        "one stream, tokens/s": found["one_stream"]["decode_tokens_per_second"],
    }


def _workload(args: argparse.Namespace, llm: Any) -> Workload:
    if args.dataset_path is None:
        return random_workload(
            args.num_prompts, args.input_len, args.output_len, vocab_size=llm.built.capacity.vocab_size,
            seed=llm.settings.seed, range_ratio=args.random_range_ratio, prefix_len=args.prefix_len,
        )  # fmt: skip
    return from_file(Path(args.dataset_path), args.num_prompts, args.output_len, llm.built.tokenizer.encode)


def _measure(args: argparse.Namespace, llm: Any, work: Workload) -> dict[str, Any]:
    """vLLM's keys, of the median run; and ours."""
    text = not args.disable_detokenize and llm.built.tokenizer is not None
    others = Others()
    seconds, first, whole = [], [], []
    for run in range(-args.num_iters_warmup, args.num_iters):
        bar = requests_bar("warming up" if run < 0 else f"run {run + 1} of {args.num_iters}")
        prompts = work.prompts(run)
        begin = time.perf_counter()
        outputs = generate(llm, prompts, work.output_lens, text=text, bar=bar)
        elapsed = time.perf_counter() - begin
        if run < 0:
            continue
        seconds.append(elapsed)
        timed = [output.metrics for output in outputs]
        first += [m.time_to_first_token for m in timed if m.time_to_first_token is not None]
        whole += [m.finished_time - m.arrival_time for m in timed if m.finished_time is not None]
    elapsed = spread(seconds)["median"]
    num_in, num_out = sum(map(len, work.prompts(0))), sum(work.output_lens)
    return {
        "elapsed_time": elapsed,
        "num_requests": len(work.output_lens),
        "total_num_tokens": num_in + num_out,
        "requests_per_second": len(work.output_lens) / elapsed,
        "tokens_per_second": (num_in + num_out) / elapsed,
        "output_tokens_per_second": num_out / elapsed,
        "total_prompt_tokens": num_in,
        "total_output_tokens": num_out,
        "elapsed_times": seconds,
        "cores_of_others": others.cores(),
        "elapsed": spread(seconds),
        "percentiles": percentiles(seconds),
        "first_token_seconds": spread(first),
        "request_seconds": spread(whole),
        "workload": work.facts | {"detokenize": text, "runs": args.num_iters, "warmup_runs": args.num_iters_warmup},
    }


def _print(result: dict[str, Any]) -> None:
    first, whole = result["first_token_seconds"], result["request_seconds"]
    print(
        f"Throughput: {result['requests_per_second']:.2f} requests/s, "
        f"{result['tokens_per_second']:.2f} total tokens/s, "
        f"{result['output_tokens_per_second']:.2f} output tokens/s"
    )
    rows = {
        "tokens": f"{result['total_prompt_tokens']:,} in, {result['total_output_tokens']:,} out",
        "a run": " ".join(f"{seconds:.3f}" for seconds in result["elapsed_times"]) + " s",
    }
    for name, found in (("first token", first), ("whole request", whole)):
        if found:
            rows[name] = f"p50 {found['p50']:.3f}, p90 {found['p90']:.3f}, p99 {found['p99']:.3f} s"
    print(table(rows), flush=True)
    if warning := busy(result["cores_of_others"]):
        print(warning, file=sys.stderr)
