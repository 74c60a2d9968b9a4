"""``vllm-core bench startup MODEL``"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from vllm_core.cli.bench import versus
from vllm_core.cli.bench.engine import add_flags, check_counts, engine, generate, settings
from vllm_core.cli.bench.peers.measure import RESULT
from vllm_core.cli.bench.progress import progress
from vllm_core.cli.bench.random_checkpoint import write_checkpoint
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.bench.starts import Counts, beside, cold_and_warm, keys, show
from vllm_core.cli.bench.workload import random_workload
from vllm_core.cli.clock import seconds_since_start
from vllm_core.cli.engine_flags import words_of
from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings

__all__ = ["Startup", "start"]

OWN = ("engine", "model", "lock", "versions", "hardware", "settings", "memory_bytes")  # alike in every start
WAYS = {"random": "random weights", "files": "weights of files"}


@attrs.frozen
class Way:
    """Where a start has its weights from."""

    title: str
    words: list[str]  # of the command that starts
    wanted: EngineSettings


class Startup:
    """A fresh process for every start, from nothing to the first token."""

    about = (
        "Starts the engine in fresh processes and measures the seconds until it is ready and to the first token, as a "
        "script would have it: Python, imports, the engine, one prompt. A cold start has empty caches of kernels and "
        "of plugins, and the model's files are dropped from the system's page cache where it allows that; warm ones "
        "have the caches that the last cold one left."
    )
    examples = (
        ("bench startup ./my-model", "3 cold starts, then 3 warm ones"),
        ("bench startup ./my-model --num-iters-cold 0 --num-iters-warm 10 --output-json start.json", ""),
        (
            "bench startup ./config --weights random,files --write-checkpoint /tmp/w --vs vllm",
            "four ways, both engines",
        ),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument("--num-iters-cold", type=int, default=3, metavar="N", help="cold starts; default: 3")
        work.add_argument("--num-iters-warm", type=int, default=3, metavar="N", help="warm starts; default: 3")
        work.add_argument(
            "--num-iters-warmup", type=int, metavar="N", help="starts between; default: 0, or 1 without cold ones"
        )
        work.add_argument("--input-len", type=int, default=128, metavar="N", help="random tokens in; default: 128")
        work.add_argument(
            "--weights",
            metavar="NAMES",
            help="measure some of random,files one after the other; default: --load-format's",
        )
        work.add_argument(
            "--write-checkpoint", metavar="DIR",
            help="write safetensors with random weights for MODEL's config.json here, and take them for files",
        )  # fmt: skip
        work.add_argument(
            "--drop-files", choices=("cold", "always", "never"), default="cold",
            help="before which starts the model's files are dropped from the page cache; default: cold",
        )  # fmt: skip
        work.add_argument("--once", action="store_true", help="start in this process, print one line of JSON")
        add_output_flag(work)
        versus.add_flags(parser)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        check_counts(args, num_iters_cold=0, num_iters_warm=1, input_len=1)
        if args.num_iters_warmup is None:
            args.num_iters_warmup = 0 if args.num_iters_cold else 1
        check_counts(args, num_iters_warmup=0)
        kept(args)
        wanted = settings(args)
        if args.once:
            print(RESULT + json.dumps(_once(wanted, args.input_len), default=str))
            return 0
        peer = versus.find_peer(args)
        ways = _ways(args, wanted)
        counts = Counts(args.num_iters_cold, args.num_iters_warmup, args.num_iters_warm, args.drop_files)
        found = {name: _measure(args, way, counts, peer) for name, way in ways.items()}
        result = found[""] if "" in found else {**{key: found[[*found][-1]][key] for key in OWN}, "ways": found}
        result["workload"] = {"input_len": args.input_len, "output_len": 1}
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
        made, ready = time.perf_counter() - begin, seconds_since_start()
        vocab = llm.built.capacity.vocab_size
        work = random_workload(1, min(input_len, llm.built.max_model_len - 1), 1, vocab_size=vocab)
        generate(llm, work.prompts(0), [1])
        first = seconds_since_start()
        return {"startup_seconds": made, "ready_seconds": ready, "first_token_seconds": first, **record(llm)}


def _ways(args: argparse.Namespace, wanted: EngineSettings) -> dict[str, Way]:
    """By name; one without a name, if none was asked for."""
    from vllm_core.weights.errors import CheckpointError

    words = words_of(args)
    if args.weights is None:
        if args.write_checkpoint is not None:
            raise UsageError("--write-checkpoint goes with --weights files")
        return {"": Way("", words, wanted)}
    names = [name.strip() for name in args.weights.split(",") if name.strip()]
    if unknown := [name for name in names if name not in WAYS] or ([] if names else [""]):
        raise UsageError(f"--weights {unknown[0]}: known are {', '.join(WAYS)}")
    folder = args.write_checkpoint
    if folder is not None and "files" not in names:
        raise UsageError("--write-checkpoint goes with --weights files")
    if folder is not None:
        print(f"writing random weights to {folder} ...", file=sys.stderr, flush=True)
        write_checkpoint(wanted.model, folder)
    ways = {}
    for name in dict.fromkeys(names):
        model = folder if name == "files" and folder is not None else wanted.model
        file_format = "auto" if wanted.load_format == "dummy" else wanted.load_format
        load_format = "dummy" if name == "random" else file_format
        own = words_of(argparse.Namespace(**{**vars(args), "model": model}))
        ways[name] = Way(
            f"{WAYS[name]}: ",
            [*own, f"--load-format={load_format}"],
            attrs.evolve(wanted, model=model, load_format=load_format),
        )
    for way in ways.values():  # before anything is measured, whether the files are there
        try:
            _files(way.wanted)
        except CheckpointError as error:
            raise CheckpointError(f"{error}\n  or      --write-checkpoint DIR writes some") from error
    return ways


def _measure(args: argparse.Namespace, way: Way, counts: Counts, peer: versus.Peer | None) -> dict[str, Any]:
    """Starts of this engine, then of the peer."""
    words = [*way.words, "--input-len", str(args.input_len)]
    files = _files(way.wanted) if counts.drop != "never" and (counts.cold or counts.drop == "always") else []

    def own(caches: dict[str, str]) -> dict[str, Any]:
        return start(words, {**os.environ, **caches} if caches else None)

    with progress(f"{way.title}starts", counts.all) as tick:
        starts = cold_and_warm(own, files, counts, tick)
    last = starts["warm"][-1]
    result = keys(starts) | {key: last[key] for key in OWN}
    result["peak_memory_bytes"] = max(one["peak_memory_bytes"] for one in starts["warm"])
    show(way.title, result, starts)
    print(f"Memory: {result['peak_memory_bytes'] / (1 << 20):,.0f} MiB at its peak, all processes", flush=True)
    if peer is not None:
        result["versus"] = _versus(args, way, counts, peer, starts, files)
    return result


def _versus(
    args: argparse.Namespace, way: Way, counts: Counts, peer: versus.Peer, starts: Any, files: Sequence[Path]
) -> dict[str, Any]:
    print(f"{way.title}starting {peer.name} {counts.all} times ...", file=sys.stderr, flush=True)
    own = starts["warm"][-1]
    prompt = [200] * args.input_len
    work = {"warmup": [], "runs": [[prompt]], "output_lens": [1], "streams": [], "stream_len": 1}
    job = {**versus.job_of(args, peer, own), **work}

    def begin(caches: dict[str, str]) -> dict[str, Any]:
        return versus.run_peer(attrs.evolve(peer, env={**caches, **peer.env}), job, own)

    with progress(f"{peer.name}'s starts", counts.all) as tick:
        found = cold_and_warm(begin, files, counts, tick)
    figures = beside(starts, found)
    versus.print_figures(figures, f"{peer.name} {found['warm'][-1]['version']}")
    return {"peer": peer.name, "python": peer.python, "figures": figures, **found}


def _files(wanted: EngineSettings) -> list[Path]:
    """The files that a start reads of the model, if they are here."""
    from vllm_core.engine.find import find

    path = getattr(find(wanted, {}).checkpoint, "path", None)
    if path is None:
        return []
    path = Path(path)
    return [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
