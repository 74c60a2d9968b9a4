"""``vllm-core bench serve``"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from vllm_plugin_server.bench import plot, saving
from vllm_plugin_server.bench.arrivals import arrivals, ramp_arrivals
from vllm_plugin_server.bench.ask import BACKENDS, Sample, Wish
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.bench.data import check_data, samples
from vllm_plugin_server.bench.figures import figures
from vllm_plugin_server.bench.flags import SAMPLING, add_flags, goodput_of
from vllm_plugin_server.bench.load import offer
from vllm_plugin_server.bench.printing import shown
from vllm_plugin_server.bench.ready import first_model, wait_until_answers, wait_until_listens, warm_up
from vllm_plugin_server.bench.tokens import RawTokens, choose

__all__ = ["BenchServe"]


class BenchServe:
    about = (
        "Sends load to a server of OpenAI's API and measures what clients wait for: time to the first token (TTFT), "
        "per output token (TPOT), between tokens (ITL), to the end (E2EL). Flags and result files are those of "
        "vLLM's benchmark. Fails if every request of a run failed."
    )
    examples = (
        ("bench serve --num-prompts 64 --input-len 128 --output-len 32", "64 requests at once"),
        ("bench serve --request-rate 1,2,4,8 --num-prompts 100 --plot latency.svg", "a sweep over rates"),
        ("bench serve --backend openai-chat --dataset-name sharegpt --dataset-path talks.json", "conversations"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        _check(args)
        results = asyncio.run(_measure(args))
        if args.plot and any(result["completed"] for result in results):
            found = plot.panels(results, args.percentile_metrics, args.metric_percentiles)
            plot.draw(args.plot, f"{results[0]['model_id']}: latency against rate", found)
            print(f"plot: {args.plot}")
        return 0 if all(result["completed"] for result in results) else 1


def _check(args: argparse.Namespace) -> None:
    check_data(args)
    goodput_of(args.goodput)
    saving.pairs(args.metadata, "--metadata")
    saving.pairs(args.header, "--header")
    if args.plot:
        plot.check_plot(args.plot)
    if args.num_prompts < 1:
        raise ValueError(f"--num-prompts must be at least 1, not {args.num_prompts}")
    if not args.burstiness > 0:
        raise ValueError(f"--burstiness must be above 0, not {args.burstiness:g}")
    if len(args.request_rate) > 1 and len(args.max_concurrency or ()) > 1:
        raise ValueError("one of --request-rate and --max-concurrency may be a list, not both")
    ramp = (args.ramp_up_strategy, args.ramp_up_start_rps, args.ramp_up_end_rps)
    if any(value is not None for value in ramp):
        if None in ramp:
            raise ValueError("a ramp needs --ramp-up-strategy, --ramp-up-start-rps and --ramp-up-end-rps")
        if args.request_rate != [float("inf")]:
            raise ValueError("a ramp has its own rates: leave --request-rate out")
    if (
        args.result_filename
        and not args.append_result
        and len(args.request_rate) * len(args.max_concurrency or [1]) > 1
    ):
        raise ValueError(
            "--result-filename would hold only the last of several runs; with --append-result it holds all"
        )


def _client(args: argparse.Namespace) -> Client:
    headers = saving.pairs(args.header, "--header")
    if (key := os.environ.get("OPENAI_API_KEY")) and "authorization" not in map(str.lower, headers):
        headers["Authorization"] = f"Bearer {key}"
    host = f"[{args.host}]" if ":" in args.host else args.host
    return Client(args.base_url or f"http://{host}:{args.port}", headers, insecure=args.insecure)


def _wish(args: argparse.Namespace, model: str) -> Wish:
    chosen = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    return Wish(
        backend=args.backend, route=args.endpoint or BACKENDS[args.backend], model=args.served_model_name or model,
        extra=chosen | (args.extra_body or {}), ignore_eos=args.ignore_eos or args.dataset_name == "random",
        logprobs=args.logprobs, id_prefix=args.request_id_prefix,
    )  # fmt: skip


async def _measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    client = _client(args)
    try:
        model, root = args.model, None
        if model is None:
            model, root = await first_model(client, args.ready_check_timeout_sec)
        else:  # before a tokenizer is looked for elsewhere
            await wait_until_listens(client, args.ready_check_timeout_sec)
        wish = _wish(args, model)
        tokens = (
            RawTokens(args.vocab_size)
            if args.skip_tokenizer_init
            else await choose(client, wish.model, root or model, args.tokenizer)
        )
        data = await samples(args, tokens)
        if args.ready_check_timeout_sec > 0:
            await wait_until_answers(client, wish, data[0], args.ready_check_timeout_sec)
        if args.num_warmups > 0:
            most = max(args.max_concurrency) if args.max_concurrency else None
            await warm_up(client, wish, data[0], args.num_warmups, most)
        results = []
        for rate in args.request_rate:
            for concurrency in args.max_concurrency or [None]:
                result = await _one(args, client, wish, data, rate, concurrency, model, tokens.name)
                print(shown(result, args.percentile_metrics, args.metric_percentiles), flush=True)
                if args.save_result or args.append_result:
                    path = saving.file_name(result, folder=args.result_dir, given=args.result_filename)
                    saving.save(path, result, detailed=args.save_detailed, append=args.append_result)
                    print(f"result: {path}")
                results.append(result)
        return results
    finally:
        client.close()


async def _one(
    args: argparse.Namespace, client: Client, wish: Wish, data: list[Sample], rate: float, concurrency: int | None,
    model: str, tokenizer: str | None,
) -> dict[str, Any]:  # fmt: skip
    chance = random.Random(args.seed)
    ramp: dict[str, Any] = {}
    if args.ramp_up_strategy:
        ramp = {name: getattr(args, name) for name in ("ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps")}
        times = ramp_arrivals(len(data), *ramp.values(), args.burstiness, chance)
    else:
        times = arrivals(len(data), rate, args.burstiness, chance)
    run = await offer(client, wish, data, times, max_concurrency=concurrency, done=_progress(args, len(data)))
    top = saving.head(
        date=datetime.now().strftime("%Y%m%d-%H%M%S"), backend=args.backend, label=args.label, model_id=model,
        tokenizer_id=tokenizer, num_prompts=len(data), rate=rate, burstiness=args.burstiness,
        max_concurrency=concurrency, metadata=saving.pairs(args.metadata, "--metadata"),
    )  # fmt: skip
    measured = figures(
        run, metrics=args.percentile_metrics, percentiles=args.metric_percentiles, goodput=goodput_of(args.goodput)
    )
    return top | ramp | measured


def _progress(args: argparse.Namespace, total: int) -> Callable[[], None]:
    """A line on standard error, if a person looks at it."""
    if args.disable_tqdm or not sys.stderr.isatty():
        return lambda: None
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        print(f"\r{count}/{total} requests", end="\n" if count == total else "", file=sys.stderr, flush=True)

    return done
