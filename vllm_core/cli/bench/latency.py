"""``vllm-core bench latency MODEL``"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from vllm_core.cli.bench import versus
from vllm_core.cli.bench.engine import add_flags, check_counts, check_fits, engine, generate, settings
from vllm_core.cli.bench.figures import busy, decode_rate, percentiles, spread, table
from vllm_core.cli.bench.peers.measure import Others
from vllm_core.cli.bench.progress import progress
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.bench.workload import Workload, random_workload

__all__ = ["Latency"]

STREAMS = 3  # that are measured


class Latency:
    """One batch again and again, then one stream."""

    about = (
        "Measures how long one batch takes from the call to its last token. Then one stream: (N - 1) / "
        "(seconds for N tokens - seconds for 1 token) is its speed while it decodes, without the prompt. "
        "Greedy, every output as long as asked for, prefix caching off unless it is asked for. Any setting of "
        "the engine works."
    )
    examples = (
        ("bench latency ./my-model", "batches of 8, 32 + 128 tokens"),
        ("bench latency ./my-model --vs vllm --vs-python ~/vllm/bin/python", "beside vLLM, in one run"),
        ("bench latency ./my-model --batch-size 1 --input-len 2000 --output-len 1", "time to the first token"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument("--input-len", type=int, default=32, metavar="N", help="random tokens in; default: 32")
        work.add_argument("--output-len", type=int, default=128, metavar="N", help="tokens out; default: 128")
        work.add_argument("--batch-size", type=int, default=8, metavar="N", help="requests at once; default: 8")
        work.add_argument("--num-iters", type=int, default=10, metavar="N", help="measured batches; default: 10")
        work.add_argument("--num-iters-warmup", type=int, default=3, metavar="N", help="batches before; default: 3")
        work.add_argument("--disable-detokenize", action="store_true", help="make no text of the tokens")
        add_output_flag(work)
        versus.add_flags(parser)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        check_counts(args, input_len=1, output_len=1, batch_size=1, num_iters=1, num_iters_warmup=0)
        kept(args)
        wanted, peer = settings(args), versus.find_peer(args)
        with engine(wanted) as llm:
            work = random_workload(
                args.batch_size, args.input_len, args.output_len,
                vocab_size=llm.built.capacity.vocab_size, seed=llm.settings.seed,
            )  # fmt: skip
            result = _measure(args, llm, work)
            result |= record(llm)
        _print(result)
        if peer:
            streams = {
                "streams": [work.prompts(1000 + i)[0] for i in range(1 + STREAMS)],
                "stream_len": args.output_len,
            }
            result["versus"] = versus.compare(args, peer, result, work, streams)
        write(args, result)
        return 0


def _measure(args: argparse.Namespace, llm: Any, work: Workload) -> dict[str, Any]:
    text = not args.disable_detokenize and llm.built.tokenizer is not None
    check_fits(llm, work.prompts(0), work.output_lens)
    others = Others()

    def seconds(run: int, rows: int, length: int) -> float:
        prompts = work.prompts(run)[:rows]
        begin = time.perf_counter()
        generate(llm, prompts, [length] * rows, text=text)
        return time.perf_counter() - begin

    with progress("warming up", args.num_iters_warmup) as tick:
        for run in range(args.num_iters_warmup):
            seconds(-1 - run, args.batch_size, args.output_len)
            tick()
    latencies = []
    with progress("batches", args.num_iters) as tick:
        for run in range(args.num_iters):
            latencies.append(seconds(run, args.batch_size, args.output_len))
            tick()
    few = min(STREAMS, args.num_iters)
    with progress("one stream", 2 * few) as tick:
        for_one: list[float] = []
        for_all: list[float] = []
        for run in range(few):
            for length, into in ((1, for_one), (args.output_len, for_all)):
                into.append(seconds(1000 + 2 * run + (length > 1), 1, length))
                tick()
    rate = decode_rate(args.output_len, statistics.median(for_all), statistics.median(for_one))
    return {
        "avg_latency": statistics.fmean(latencies),
        "std_latency": statistics.pstdev(latencies),
        "latencies": latencies,
        "total_output_tokens": sum(work.output_lens),
        "output_tokens_per_second": sum(work.output_lens) / statistics.median(latencies),
        "percentiles": percentiles(latencies),
        "latency": spread(latencies),
        "cores_of_others": others.cores(),
        "one_stream": {
            "seconds_for_1": for_one,
            "seconds_for_all": for_all,
            "stream_len": args.output_len,
            "decode_tokens_per_second": rate,
        },
        "workload": work.facts | {"batch_size": args.batch_size, "detokenize": text},
    }


def _print(result: dict[str, Any]) -> None:
    latency, stream = result["latency"], result["one_stream"]
    rate = stream["decode_tokens_per_second"]
    print(f"Avg latency: {result['avg_latency']:.4f} s")
    rows = {
        "a batch": f"p50 {latency['p50']:.4f}, p90 {latency['p90']:.4f}, p99 {latency['p99']:.4f} s",
        "first token": f"{statistics.median(stream['seconds_for_1']):.4f} s, alone",
    }
    if rate is not None:
        rows["one stream"] = f"{rate:.1f} tokens/s"
    rows["memory"] = f"{result['peak_memory_bytes'] / (1 << 20):,.0f} MiB at its peak, all processes"
    print(table(rows), flush=True)
    if warning := busy(result["cores_of_others"]):
        print(warning, file=sys.stderr)
