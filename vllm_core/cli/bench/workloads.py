"""``vllm-core bench workloads MODEL``"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import attrs

from vllm_core.cli.bench import versus
from vllm_core.cli.bench.compare import compare
from vllm_core.cli.bench.engine import add_flags, engine, settings
from vllm_core.cli.bench.figures import busy, table
from vllm_core.cli.bench.peers.measure import RESULT, Others
from vllm_core.cli.bench.peers.workloads import ALL, LONGEST, TITLES, Workloads
from vllm_core.cli.bench.progress import progress
from vllm_core.cli.bench.record import add_output_flag, kept, record, write
from vllm_core.cli.engine_flags import words_of
from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings

__all__ = ["WorkloadsCommand"]

LENGTH = 9216  # tokens of the engine's longest sequence, unless another is asked for


class WorkloadsCommand:
    """Start once, then one workload after the other."""

    about = (
        "Measures the start and six workloads: w1 mixed lengths, w2 one stream, w3 the first token of a long prompt, "
        "w4 a batch, w5 a shared prefix, w6 long contexts. Prompts are random token ids, outputs as long as asked for, "
        "prefix caching on. Any setting of the engine works; --load-format dummy needs no weights."
    )
    examples = (
        ("bench workloads ./my-model", "all six; sequences of up to 9,216 tokens"),
        ("bench workloads ./my-model --only w2,w3 --load-format dummy --skip-tokenizer-init", "random weights"),
        ("bench workloads ./my-model --compare batch-invariant", "what a setting costs"),
        ("bench workloads ./my-model --vs vllm --vs-python ~/vllm/bin/python --output-json result.json", ""),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        work = parser.add_argument_group("workload")
        work.add_argument("--only", metavar="NAMES", default=",".join(ALL), help="some of w1,w2,w3,w4,w5,w6")
        work.add_argument(
            "--scale", type=float, default=1.0, metavar="X",
            help="lengths and numbers of requests times X, for small models and machines; default: 1",
        )  # fmt: skip
        work.add_argument("--once", action="store_true", help="only this engine, print one line of JSON")
        work.add_argument(
            "--compare",
            metavar="SETTING",
            help="measure with a setting off, then on: batch-invariant, ...; or with two"
            " executors: distributed-executor-backend=in-process,mp",
        )
        add_output_flag(work)
        versus.add_flags(parser)
        add_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        names = _names(args.only)
        if not 0 < args.scale <= 1:
            raise UsageError("--scale must be above 0 and at most 1")
        kept(args)
        wanted = settings(args, prefix_caching=True)
        if wanted.max_model_len is None:
            wanted = attrs.evolve(wanted, max_model_len=max(64, round(LENGTH * args.scale)))
        if args.once:
            print(RESULT + json.dumps(_measure(wanted, names, args.scale), default=str))
            return 0
        peer = versus.find_peer(args)
        if args.compare is not None:
            if peer:
                raise UsageError("--compare goes without --vs")
            write(args, compare(args.compare, wanted, lambda wanted, flag: _shown(_apart(args, flag)), _figures))
            return 0
        # Beside a peer each has the machine for itself, in a process of its own.
        result = _apart(args) if peer else _measure(wanted, names, args.scale)
        _print(result)
        if peer:
            result["versus"] = _compare(args, peer, result, names)
        write(args, result)
        return 0


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ALL]:
        raise UsageError(f"--only {unknown[0]}: there is no such workload; known are {', '.join(ALL)}")
    if not names:
        raise UsageError(f"--only names no workload; known are {', '.join(ALL)}")
    return names


def _measure(wanted: EngineSettings, names: list[str], scale: float) -> dict[str, Any]:
    begin = time.perf_counter()
    with engine(wanted) as llm:
        started = time.perf_counter() - begin
        longest = max(names, key=lambda name: LONGEST[name])
        needed = round(LONGEST[longest] * scale) + 4
        if needed > llm.built.max_model_len:
            raise UsageError(
                f"{longest} has requests of {needed:,} tokens; the engine takes {llm.built.max_model_len:,}\n"
                "  instead --only names others, --scale makes all shorter, --max-model-len may allow more"
            )
        others, vocab = Others(), llm.built.capacity.vocab_size
        text = llm.built.tokenizer is not None

        def generate(prompts: list[list[int]], lens: list[int], temperature: float) -> int:
            return _generate(llm, prompts, lens, temperature, text)

        with progress("workloads", len(names)) as tick:
            found = Workloads(generate, vocab, scale, llm.settings.seed, tick).run(names)
        return {
            "startup_seconds": started,
            "workloads": found,
            "scale": scale,
            "vocab_size": vocab,
            "cores_of_others": others.cores(),
            **record(llm),
        }


def _generate(llm: Any, prompts: list[list[int]], lens: list[int], temperature: float, text: bool) -> int:
    from vllm_core import SamplingParams

    wanted = [
        SamplingParams(temperature=temperature, max_tokens=n, ignore_eos=True, detokenize=text, seed=i)
        for i, n in enumerate(lens)
    ]
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], wanted, use_tqdm=False)
    if error := next((output.error for output in outputs if output.error), ""):
        raise RuntimeError(error)
    return sum(len(output.outputs[0].token_ids) for output in outputs)


def _apart(args: argparse.Namespace, *flags: str) -> dict[str, Any]:
    """The same in a process of its own."""
    words = [*words_of(args), *flags, "--only", args.only, "--scale", str(args.scale)]
    command = [sys.executable, "-m", "vllm_core", "bench", "workloads", "--once", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith(RESULT)), None)
    if done.returncode or line is None:
        raise RuntimeError(
            f"the measurement failed with exit code {done.returncode}.\n  why     {done.stderr.strip()[-2000:]}"
        )
    return json.loads(line.removeprefix(RESULT))


def _compare(args: argparse.Namespace, peer: versus.Peer, own: dict[str, Any], names: list[str]) -> dict[str, Any]:
    print(f"starting {peer.name} ...", file=sys.stderr, flush=True)
    job = {**versus.job_of(args, peer, own), "workloads": names, "scale": own["scale"], "vocab_size": own["vocab_size"]}
    found = versus.run_peer(peer, job, own)
    rows = {"start to ready, s": (own["startup_seconds"], found["engine_s"])}
    for name, figure in own["workloads"].items():
        rows[f"{name} {TITLES[name]}, {figure['unit']}"] = (figure["value"], found["workloads"][name]["value"])
    figures = {name: {"own": a, "peer": b, "ratio": a / b if a and b else None} for name, (a, b) in rows.items()}
    versus.print_figures(figures, f"{peer.name} {found['version']}")
    return {"peer": peer.name, "python": peer.python, "figures": figures, **found}


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    _print(result)
    return result


def _figures(found: dict[str, Any]) -> dict[str, float | None]:
    return {f"{name} {TITLES[name]}, {one['unit']}": one["value"] for name, one in found["workloads"].items()}


def _print(result: dict[str, Any]) -> None:
    rows = {"start to ready": f"{result['startup_seconds']:.2f} s"}
    for name, figure in result["workloads"].items():
        rows[f"{name} {TITLES[name]}"] = f"{figure['value']:,.4g} {figure['unit']}"
    if device := result["device_memory_bytes"]:
        planned = sum(result["memory_bytes"].values())
        rows["device memory"] = (
            f"{device['taken'] / (1 << 30):.2f} GiB taken, {planned / (1 << 30):.2f} planned, torch's peak "
            f"{device['peak_reserved'] / (1 << 30):.2f}"
        )
    print(table(rows), flush=True)
    if warning := busy(result["cores_of_others"]):
        print(warning, file=sys.stderr)
