"""The same workload in a peer, one engine after the other in one run, and the ratios."""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import attrs

from vllm_core.cli.bench.figures import busy, decode_rate
from vllm_core.cli.bench.peers.measure import RESULT
from vllm_core.cli.bench.workload import Workload, random_workload
from vllm_core.cli.errors import UsageError

__all__ = [
    "Peer", "add_flags", "compare", "find_peer", "job_of", "own_streams", "print_figures", "run_peer", "streams",
]  # fmt: skip

STREAM = 128  # tokens in and out of one stream, where they fit
RUNS = 3  # streams that are measured
PEERS = {"vllm": "run_vllm.py", "transformers": "run_transformers.py"}
_NOTE = "Runs the same token ids in another engine, in its own Python: its start, the batch, one stream, its memory."


@attrs.frozen
class Peer:
    name: str
    python: str
    arguments: dict[str, Any]
    env: dict[str, str] = attrs.field(factory=dict)  # set for it alone

    @property
    def script(self) -> Path:
        return Path(__file__).parent / "peers" / PEERS[self.name]


def add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("comparison", _NOTE)
    group.add_argument("--vs", choices=tuple(PEERS), help="the peer")
    group.add_argument("--vs-python", metavar="PYTHON", help="a Python that can import it; default: this one")
    group.add_argument("--vs-model", metavar="MODEL", help="the checkpoint in the peer's format, if not MODEL")
    group.add_argument("--vs-args", metavar="JSON", help='more arguments for it: {"enforce_eager": true}')
    group.add_argument(
        "--vs-env", metavar="NAME=VALUE", action="append", help="a variable of its environment; may be given again"
    )


def find_peer(args: argparse.Namespace) -> Peer | None:
    """Who is compared with; ``UsageError`` if it is not there, before anything is loaded."""
    if args.vs is None:
        names = ("vs_python", "vs_model", "vs_args", "vs_env")
        given = next((name for name in names if getattr(args, name) is not None), None)
        if given:
            raise UsageError(f"--{given.replace('_', '-')} goes with --vs")
        return None
    python = args.vs_python or sys.executable
    arguments, env = _arguments(args.vs_args), _variables(args.vs_env)
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({args.vs!r}) is None)"
    try:
        found = {**os.environ, **env}
        there = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, env=found)
        why = "" if there.returncode == 0 else there.stderr.strip()[-500:] or f"it has no module {args.vs}"
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        raise UsageError(
            f"{args.vs} cannot be run by {python}, so there is nothing to compare with.\n"
            f"  why     {why}\n"
            f"  instead --vs-python PYTHON, the interpreter of an environment with {args.vs}:\n"
            f"          python -m venv peer && peer/bin/pip install {args.vs}, then --vs-python peer/bin/python"
        )
    return Peer(args.vs, python, arguments, env)


def _variables(given: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    if wrong := [name for name, sign, _ in pairs if not (name and sign)]:
        raise UsageError(f"--vs-env must be NAME=VALUE, not {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def _arguments(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UsageError(f"--vs-args must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"--vs-args must be a JSON table of arguments, not {text}")
    return found


def streams(llm: Any, work: Workload) -> dict[str, Any]:
    """The streams of a job: prompts, and how long each gets. The first one warms up."""
    length = min(STREAM, llm.built.max_model_len // 2)
    vocab = llm.built.capacity.vocab_size
    alone = random_workload(1, length, length, vocab_size=vocab, seed=llm.settings.seed + 1)
    return {"streams": [alone.prompts(run)[0] for run in range(1 + RUNS)], "stream_len": length}


def own_streams(llm: Any, job: dict[str, Any]) -> dict[str, Any]:
    """One stream of this engine, measured as the peer's."""
    from vllm_core.cli.bench.engine import generate
    from vllm_core.cli.bench.peers.measure import load

    def run(prompts: list[list[int]], wanted: list[int]) -> int:
        return sum(len(output.outputs[0].token_ids) for output in generate(llm, prompts, wanted))

    found = load(run, {"warmup": [], "runs": [], "output_lens": [], **job})
    del found["elapsed_times"], found["cores_of_others"]
    return found | {"decode_tokens_per_second": _decode(found)}


def compare(
    args: argparse.Namespace, peer: Peer, own: dict[str, Any], work: Workload, job: dict[str, Any]
) -> dict[str, Any]:
    """Start this engine once more, in a fresh process, then the peer with its whole job; print both."""
    from vllm_core.cli.bench.startup import start
    from vllm_core.cli.engine_flags import words_of

    print(f"starting vllm-core once more, then {peer.name} ...", file=sys.stderr, flush=True)
    begun = start([*words_of(args), "--input-len", str(job["stream_len"])])
    found = run_peer(peer, {
        **job_of(args, peer, own), "output_lens": work.output_lens,
        "warmup": [work.prompts(-1 - run) for run in range(args.num_iters_warmup)],
        "runs": [work.prompts(run) for run in range(args.num_iters)], **job,
    }, own)  # fmt: skip
    tokens = own["total_output_tokens"]
    rows = {
        "first token of a script, s": (begun["first_token_seconds"], found["first_token_s"]),
        "output tokens/s": (own["output_tokens_per_second"], tokens / statistics.median(found["elapsed_times"])),
        "one stream, tokens/s": (own["one_stream"]["decode_tokens_per_second"], _decode(found)),
        "peak memory, MiB": (own["peak_memory_bytes"] / (1 << 20), found["peak_memory_bytes"] / (1 << 20)),
    }
    figures = {name: {"own": a, "peer": b, "ratio": a / b if a and b else None} for name, (a, b) in rows.items()}
    print_figures(figures, f"{peer.name} {found['version']}")
    if warning := busy(found["cores_of_others"]):
        print(f"{peer.name}: {warning}", file=sys.stderr)
    return {"peer": peer.name, "python": peer.python, "figures": figures, "own_start": begun["start_seconds"], **found}


def _decode(found: dict[str, Any]) -> float | None:
    return decode_rate(
        found["stream_len"], statistics.median(found["seconds_for_all"]), statistics.median(found["seconds_for_1"])
    )


def job_of(args: argparse.Namespace, peer: Peer, own: dict[str, Any]) -> dict[str, Any]:
    """How the peer is made: as the engine whose record ``own`` is."""
    settings = own["settings"]
    return {
        "model": args.vs_model or settings["model"], "dtype": settings["dtype"],
        "device": next((device["type"] for device in own["hardware"]["devices"]), "cpu"),
        "max_model_len": settings["max_model_len"], "max_num_seqs": settings["max_num_seqs"],
        "seed": settings["seed"], "load_format": settings["load_format"],
        "skip_tokenizer": settings["skip_tokenizer_init"],
        "gpu_memory_utilization": settings["gpu_memory_utilization"], "arguments": peer.arguments,
    }  # fmt: skip


def run_peer(peer: Peer, job: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Do the job (``peers.measure``) in the peer's own process."""
    env = {**os.environ, **_environment(peer, job["device"], own), **peer.env}
    text = json.dumps({**job, "started": time.time()})
    done = subprocess.run([peer.python, str(peer.script)], input=text, env=env, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith(RESULT)), None)
    if done.returncode or line is None:
        raise RuntimeError(
            f"{peer.name} failed with exit code {done.returncode}.\n  by      {peer.python} {peer.script}\n"
            f"  why     {_reasons(done.stderr or done.stdout)}\n"
            "  instead --vs-model names a checkpoint that it reads, --vs-args gives it arguments"
        )
    return json.loads(line.removeprefix(RESULT))


def _reasons(text: str) -> str:
    """The exceptions named in what a process printed, or the end of it: the last one may be far from its cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [found[0] for line in lines if (found := re.search(r"\b[A-Z]\w*(Error|Exception): .*", line))]
    return ("\n" + " " * 10).join(list(dict.fromkeys(raised))[-4:] or lines[-4:])


def _environment(peer: Peer, device: str, own: dict[str, Any]) -> dict[str, str]:
    """What is set for the peer unless it is set already: quiet, and on a CPU what its documentation recommends."""
    wanted = {"TOKENIZERS_PARALLELISM": "false"}
    if peer.name == "vllm":
        wanted |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        if device == "cpu":
            cores = ",".join(map(str, sorted(os.sched_getaffinity(0)))) if hasattr(os, "sched_getaffinity") else "auto"
            cache = -(-own["memory_bytes"].get("kv_cache", 1 << 30) // (1 << 30))  # GiB, as this engine has
            libraries = [find_library("tcmalloc_minimal"), *Path(peer.python).parent.parent.glob("lib/libiomp5.so")]
            wanted |= {
                "VLLM_CPU_OMP_THREADS_BIND": cores, "VLLM_CPU_KVCACHE_SPACE": str(cache),
                "LD_PRELOAD": ":".join(str(library) for library in libraries if library),
            }  # fmt: skip
    return {name: value for name, value in wanted.items() if value and name not in os.environ}


def print_figures(figures: dict[str, dict[str, Any]], peer: str) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"

    width = max(map(len, figures))
    print(f"\n{'':{width}}  {'vllm-core':>12}  {peer:>20}  {'ratio':>7}")
    for name, row in figures.items():
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
        print(f"{name:<{width}}  {shown(row['own']):>12}  {shown(row['peer']):>20}  {ratio:>7}", flush=True)
