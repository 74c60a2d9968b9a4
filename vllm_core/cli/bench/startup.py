"""``vllm-core bench startup MODEL``"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm_core.cli.bench.engine import add_flags, check_counts, engine, generate, settings
from vllm_core.cli.bench.figures import percentiles, spread, table
from vllm_core.cli.bench.peers.measure import RESULT
from vllm_core.cli.bench.progress import progress
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.bench.workload import random_workload
from vllm_core.cli.clock import seconds_since_start
from vllm_core.cli.engine_flags import words_of
from vllm_core.config.engine import EngineSettings

__all__ = ["Startup", "start"]

OWN = ("engine", "model", "lock", "versions", "hardware", "settings", "memory_bytes")  # alike in every start


class Startup:
    """A fresh process for every start, from nothing to the first token."""

    about = (
        "Starts the engine in fresh processes and measures the seconds to the first token, as a script would "
        "have it: Python, imports, the engine, one prompt. Cold starts have an empty cache of plugins, and "
        "the model's files are dropped from the system's page cache where it allows that; warm starts have "
        "both."
    )
    examples = (
        ("bench startup ./my-model", "3 cold starts, 1 to warm up, 3 warm ones"),
        ("bench startup ./my-model --num-iters-cold 0 --num-iters-warm 10 --output-json start.json", ""),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument("--num-iters-cold", type=int, default=3, metavar="N", help="cold starts; default: 3")
        work.add_argument("--num-iters-warm", type=int, default=3, metavar="N", help="warm starts; default: 3")
        work.add_argument("--num-iters-warmup", type=int, default=1, metavar="N", help="starts between; default: 1")
        work.add_argument("--input-len", type=int, default=128, metavar="N", help="random tokens in; default: 128")
        work.add_argument("--once", action="store_true", help="start in this process, print one line of JSON")
        add_output_flag(work)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        check_counts(args, num_iters_cold=0, num_iters_warm=1, num_iters_warmup=0, input_len=1)
        kept(args)
        wanted = settings(args)
        if args.once:
            print(RESULT + json.dumps(_once(wanted, args.input_len), default=str))
            return 0
        cold, warm = _starts(args, wanted)
        result = _keys("cold", cold) | _keys("warm", warm)
        result |= {key: warm[-1][key] for key in OWN}
        result["peak_memory_bytes"] = max(one["peak_memory_bytes"] for one in warm)
        result["workload"] = {"input_len": args.input_len, "output_len": 1}
        _print(result, cold, warm)
        write(args, result)
        return 0


def start(words: Sequence[str], env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run ``vllm-core bench startup --once WORDS`` in a process of its own; what it found, and the seconds it took."""
    command = [sys.executable, "-m", "vllm_core", "bench", "startup", "--once", *words]
    begin = time.perf_counter()
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wall = time.perf_counter() - begin
    line = next((line for line in done.stdout.splitlines() if line.startswith(RESULT)), None)
    if done.returncode or line is None:
        raise RuntimeError(f"a start failed with exit code {done.returncode}.\n  why     {done.stderr.strip()[-2000:]}")
    return {**json.loads(line.removeprefix(RESULT)), "process_seconds": wall}


def _once(wanted: EngineSettings, input_len: int) -> dict[str, Any]:
    begin = time.perf_counter()
    with engine(wanted) as llm:
        made = time.perf_counter() - begin
        vocab = llm.built.capacity.vocab_size
        work = random_workload(1, min(input_len, llm.built.max_model_len - 1), 1, vocab_size=vocab)
        generate(llm, work.prompts(0), [1])
        first = seconds_since_start()
        return {"startup_seconds": made, "first_token_seconds": first, **record(llm)}


def _starts(args: argparse.Namespace, wanted: EngineSettings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    words = [*words_of(args), "--input-len", str(args.input_len)]
    files = _files(wanted) if args.num_iters_cold else []
    cold, warm = [], []
    with progress("starts", args.num_iters_cold + args.num_iters_warmup + args.num_iters_warm) as tick:
        for _ in range(args.num_iters_cold):
            with tempfile.TemporaryDirectory() as empty:
                dropped = _drop(files)
                cold.append({**start(words, _without_cache(empty)), "files_dropped": dropped})
            tick()
        for i in range(args.num_iters_warmup + args.num_iters_warm):
            found = start(words)
            if i >= args.num_iters_warmup:
                warm.append(found)
            tick()
    return cold, warm


def _without_cache(folder: str) -> dict[str, str]:
    """An environment in which vllm-core's own cache is empty; downloads stay where they are."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    env = {**os.environ, "XDG_CACHE_HOME": folder}
    env.setdefault("HF_HOME", os.path.join(home, "huggingface"))
    return env


def _files(wanted: EngineSettings) -> list[Path]:
    """The files that a start reads of the model, if they are here."""
    from vllm_core.engine.find import find

    path = getattr(find(wanted, {}).checkpoint, "path", None)
    if path is None:
        return []
    path = Path(path)
    return [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]


def _drop(files: Sequence[Path]) -> bool:
    """Ask the system to forget what it has of these files in memory. Whether it could be asked."""
    if not files or not hasattr(os, "posix_fadvise"):
        return False
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _keys(phase: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """vLLM's keys, where start-up is the making of the LLM; ours for the whole way to the first token."""
    if not found:
        return {}
    result: dict[str, Any] = {}
    for name, key in (("startup", "startup_seconds"), ("first_token", "first_token_seconds")):
        values = [one[key] for one in found]
        result[f"avg_{phase}_{name}_time"] = sum(values) / len(values)
        result[f"{phase}_{name}_times"] = values
        result[f"{phase}_{name}_percentiles"] = percentiles(values)
        result[f"{phase}_{name}"] = spread(values)
    nothing = [0.0] * len(found)  # is compiled at start-up
    result[f"avg_{phase}_compilation_time"] = 0.0
    result[f"{phase}_compilation_times"] = nothing
    result[f"{phase}_compilation_percentiles"] = percentiles(nothing)
    stages = {stage: spread([one["start_seconds"].get(stage, 0.0) for one in found]) for stage in _stages(found)}
    result[f"{phase}_stages"] = {stage: values["median"] for stage, values in stages.items()}
    result[f"{phase}_process_times"] = [one["process_seconds"] for one in found]
    if phase == "cold":
        result["cold_files_dropped"] = all(one["files_dropped"] for one in found)
    return result


def _stages(found: Sequence[dict[str, Any]]) -> list[str]:
    return list(found[0]["start_seconds"])


def _print(result: dict[str, Any], cold: Sequence[Any], warm: Sequence[Any]) -> None:
    for phase, found in (("cold", cold), ("warm", warm)):
        if not found:
            continue
        first, made = result[f"{phase}_first_token"], result[f"{phase}_startup"]
        print(f"{phase.capitalize()} start: {first['median']:.2f} s to the first token (median of {len(found)})")
        rows = {
            "first token": f"p50 {first['p50']:.2f}, p90 {first['p90']:.2f}, p99 {first['p99']:.2f} s",
            "making LLM": f"p50 {made['p50']:.2f}, p90 {made['p90']:.2f}, p99 {made['p99']:.2f} s",
            **{f"  {stage}": f"{seconds:.3f} s" for stage, seconds in result[f"{phase}_stages"].items()},
        }
        print(table(rows))
    if cold and not result["cold_files_dropped"]:
        print("The model's files could not be dropped from the page cache: cold starts read them from memory.")
    print(f"Memory: {result['peak_memory_bytes'] / (1 << 20):,.0f} MiB at its peak, all processes", flush=True)
