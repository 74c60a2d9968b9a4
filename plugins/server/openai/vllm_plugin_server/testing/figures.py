"""``python -m vllm_plugin_server.testing.figures FIGURE``: what the server costs, beside the engine without it.

Each starts servers of its own and prints one line: the figure, its bound, and whether it holds. The machine should do
nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from vllm_plugin_server.bench.ask import Outcome, Sample, Wish, ask
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.own_server import POLL, OwnServer, cpu_seconds
from vllm_plugin_server.testing.watch import held, metric
from vllm_plugin_server.testing.wire import request_bytes, send

__all__ = ["main"]

Figure = Callable[[argparse.Namespace], Awaitable[tuple[bool, str]]]
FLAGS = ("--dtype", "bfloat16", "--max-model-len", "1024")

CACHE = 768 << 20  # bytes: memory that is written while the server warms up, all of it
PROMPT = 32  # tokens of a stream that is held
OUTPUT = (100, 700)
MOST_GROWTH = 0.02  # of memory
MOST_GAP = 3.0  # p99 of seconds between two tokens, over their p50
MOST_OVERHEAD = 0.15  # of throughput
MOST_IDLE = 0.01  # of a core
MOST_LATE = 1.0  # seconds from the engine's death to a 503
MOST_START = 1.5  # times the engine's alone


async def hold(args: argparse.Namespace) -> tuple[bool, str]:
    """Streams that are open all the time: where one ends, the next begins."""
    outcomes: list[Outcome] = []
    resident: list[int] = []
    async with OwnServer(args.model, *FLAGS, "--kv-cache-memory", str(CACHE)) as server:
        client, chance = Client(server.url), random.Random(0)
        # With its id, a token whose text waits for the next one is an event, too.
        more = {"return_token_ids": True}
        wish = Wish(backend="openai", route="/v1/completions", model=args.model, ignore_eos=True, extra=more)

        async def slot(number: int) -> None:
            await asyncio.sleep(number / args.streams)
            while True:
                prompt = [chance.randrange(1000, 40_000) for _ in range(PROMPT)]
                outcomes.append(await ask(client, wish, Sample(prompt, PROMPT, chance.randint(*OUTPUT))))

        begin = time.perf_counter()
        slots = [asyncio.create_task(slot(i)) for i in range(args.streams)]
        await _fill_cache(server)
        counted = time.perf_counter()
        while time.perf_counter() < counted + args.seconds:
            resident.append(held(server.pid).resident)
            await asyncio.sleep(1)
        for task in slots:
            task.cancel()
        await asyncio.gather(*slots, return_exceptions=True)
        client.close()
        well = await server.health() == 200
    failed = [outcome.error for outcome in outcomes if not outcome.success]
    gaps = [gap for outcome in outcomes for gap, at in _gaps(outcome) if at >= counted]
    few = max(1, len(resident) // 20)
    before, after = (statistics.fmean(part) for part in (resident[:few], resident[-few:]))
    growth, p50, p99 = after / before - 1, percentile(gaps, 50), percentile(gaps, 99)
    well = well and not failed and growth <= MOST_GROWTH and p99 <= MOST_GAP * p50
    return well, (
        f"{args.streams} streams for {args.seconds:g} s, after {counted - begin:.0f} s of warm-up: {len(failed)} "
        f"errors of {len(outcomes)} answers{failed[:1] or ''}; memory {before / 2**20:.0f} to {after / 2**20:.0f} MiB "
        f"({growth:+.1%}, at most {MOST_GROWTH:.0%}); between tokens p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms "
        f"({p99 / p50:.2f} x, at most {MOST_GAP:g} x), most {1e3 * max(gaps):.0f} ms"
    )


async def _fill_cache(server: OwnServer) -> None:
    """Until more tokens were written than the cache has room for: the system gives memory when it is first written."""
    page = (await send(server.address, request_bytes(server.address, "GET", "/metrics"))).body.decode()
    pages, size = (int(found[1]) for name in ("num_gpu_blocks", "block_size")
                   if (found := re.search(rf'cache_config_info{{.*{name}="(\d+)"', page)))  # fmt: skip
    while (await metric(server.address, "vllm:generation_tokens_total") or 0) < 1.1 * pages * size:
        await asyncio.sleep(1)


def _gaps(outcome: Outcome) -> list[tuple[float, float]]:
    """(seconds, when it ended) of each gap between two pieces of a stream."""
    at, found = outcome.start_time + outcome.ttft, []
    for gap in outcome.itl:
        at += gap
        found.append((gap, at))
    return found


async def overhead(args: argparse.Namespace) -> tuple[bool, str]:
    """The same work offline and through the server, in turns."""
    lengths = ("--num-prompts", "64", "--input-len", "128", "--output-len", "128")
    offline, served = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        async with OwnServer(args.model, *FLAGS, "--no-enable-prefix-caching") as server:
            serve = ("bench", "serve", "--base-url", server.url, *lengths, "--skip-tokenizer-init", "--vocab-size",
                     "40000", "--temperature", "0", "--save-result", "--result-dir", folder,
                     "--result-filename", path.name)  # fmt: skip
            await _core(*serve, "--seed", "99")
            for seed in range(args.rounds):
                await _core(*serve, "--seed", str(seed))
                result = json.loads(path.read_text())
                assert result["completed"] == 64, result
                served.append(result["output_throughput"])
                await _core("bench", "throughput", args.model, *FLAGS, *lengths, "--num-iters", "1",
                            "--output-json", str(path))  # fmt: skip
                offline.append(json.loads(path.read_text())["output_tokens_per_second"])
    alone, through = statistics.median(offline), statistics.median(served)
    cost = 1 - through / alone
    return cost <= MOST_OVERHEAD, (
        f"64 x (128 in, 128 out): offline {alone:.0f}, through the server {through:.0f} output tokens/s: "
        f"{cost:.1%} less (at most {MOST_OVERHEAD:.0%}); offline {_all(offline)}, served {_all(served)}"
    )


async def _core(*words: str) -> None:
    command = (sys.executable, "-m", "vllm_core", *words)
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"vllm-core {' '.join(words)} failed:\n{said.decode()[-2000:]}")


def _all(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


async def idle(args: argparse.Namespace) -> tuple[bool, str]:
    """Processor time of a server that nobody asks anything, after it has answered."""
    async with OwnServer(args.model, *FLAGS) as server:
        client = Client(server.url)
        wish = Wish(backend="openai", route="/v1/completions", model=args.model)
        await ask(client, wish, Sample("Hello", 1, 16))
        client.close()
        await asyncio.sleep(3)
        before, begin = cpu_seconds(server.pid), time.perf_counter()
        await asyncio.sleep(args.seconds)
        share = (cpu_seconds(server.pid) - before) / (time.perf_counter() - begin)
    return share < MOST_IDLE, f"idle for {args.seconds:g} s: {share:.2%} of a core (below {MOST_IDLE:.0%})"


async def death(args: argparse.Namespace) -> tuple[bool, str]:
    """SIGKILL of the engine's process while it serves streams."""
    async with OwnServer(args.model, *FLAGS) as server:
        client = Client(server.url)
        wish = Wish(backend="openai", route="/v1/completions", model=args.model, ignore_eos=True)
        streams = [asyncio.create_task(ask(client, wish, Sample("Hello", 1, 900), i)) for i in range(args.streams)]
        await asyncio.sleep(4)
        before = server.engine()
        begin = time.perf_counter()
        server.kill_engine()
        known = await _when(server, begin, lambda status: status == 503)
        ends = await asyncio.gather(*streams)
        told = max(end.start_time + end.latency for end in ends) - begin
        back = await _when(server, begin, lambda status: status == 200)
        after = await ask(client, wish, Sample("Hello", 1, 8))
        client.close()
        other = server.engine() != before
    errors = [end.error for end in ends if not end.success]
    well = known < MOST_LATE and told < MOST_LATE and len(errors) == args.streams and after.success and other
    return well, (
        f"engine killed under {args.streams} streams: /health 503 after {known:.3f} s, all streams ended after "
        f"{told:.3f} s (below {MOST_LATE:g} s), {len(errors)} with an error ({errors[0][:90] if errors else 'none'}); "
        f"/health 200 again after {back:.1f} s, next request {'answered' if after.success else after.error}"
    )


async def _when(server: OwnServer, begin: float, holds: Callable[[int], bool]) -> float:
    """Seconds after ``begin``."""
    while not holds(await server.health()):
        await asyncio.sleep(POLL)
        if time.perf_counter() - begin > 60:
            return float("inf")
    return time.perf_counter() - begin


async def start(args: argparse.Namespace) -> tuple[bool, str]:
    """From the start of the process to /health 200, in turns with the offline engine's start."""
    alone: list[float] = []
    first: list[float] = []
    served: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.json"
        for _ in range(args.rounds):
            await _core("bench", "startup", args.model, *FLAGS, "--num-iters-cold", "0", "--num-iters-warm", "1",
                        "--num-iters-warmup", "0" if alone else "1", "--output-json", str(path))  # fmt: skip
            found = json.loads(path.read_text())
            alone.append(found["avg_warm_ready_time"])
            first.append(found["avg_warm_first_token_time"])
            async with OwnServer(args.model, *FLAGS) as server:
                served.append(server.start_seconds)
    engine, whole = statistics.median(alone), statistics.median(served)
    ratio = whole / engine
    return ratio <= MOST_START, (
        f"start: /health 200 after {whole:.2f} s, the offline engine ready after {engine:.2f} s (first token "
        f"{statistics.median(first):.2f} s): {ratio:.2f} x (at most {MOST_START:g} x); medians of {args.rounds}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vllm_plugin_server.testing.figures", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="FIGURE")

    def figure(name: str, run: Figure, **numbers: float) -> None:
        text = (run.__doc__ or "").strip()
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--model", default="SmolLM2-135M-Instruct", help="default: SmolLM2-135M-Instruct")
        for flag, number in numbers.items():
            command.add_argument(f"--{flag}", type=type(number), default=number, metavar="N", help=f"default: {number}")

    figure("hold", hold, streams=64, seconds=180.0)
    figure("overhead", overhead, rounds=3)
    figure("idle", idle, seconds=60.0)
    figure("death", death, streams=16)
    figure("start", start, rounds=3)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(words)
    well, line = asyncio.run(args.run(args))
    print(f"{'passed' if well else 'FAILED'}  {line}", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
