"""What every engine is measured with. Standard library only: each script here imports it from its own folder.

A job, read from standard input as JSON:

    model, dtype, device, max_model_len, max_num_seqs, seed   how the engine is made
    load_format, skip_tokenizer, gpu_memory_utilization     likewise; None or false if the peer's own is right
    arguments      more arguments for it
    workloads      names of those in workloads.py, vocab_size and scale: then nothing of the following
    warmup, runs   lists of runs; a run is a list of prompts; a prompt is a list of token ids
    output_lens    tokens to generate, for each prompt of a run
    streams        prompts that are run alone, one after another, for 1 token and for stream_len
    started        time.time() when the process was started
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = "RESULT "  # before the JSON of the result, on standard output

Generate = Callable[..., int]  # (prompts, output_lens, temperature=0) -> tokens that came out


class Others:
    """Cores that processes outside this one and its children use, from the making of it."""

    def __init__(self) -> None:
        self._begun, self._used = time.time(), _used_by_others()

    def cores(self) -> float | None:
        """None where the system does not tell."""
        now = _used_by_others()
        if now is None or self._used is None:
            return None
        return max(0.0, now - self._used) / (time.time() - self._begun)


def _used_by_others() -> float | None:
    """Seconds of processors since the machine started."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        own = 0
        for pid in tree():
            try:
                own += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
            except OSError:
                continue  # it has ended
        return (sum(ticks) - ticks[3] - ticks[4] - own) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def load(generate: Generate, job: dict[str, Any], tick: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Seconds of every run and stream. ``tick`` is called after each."""
    lens, long = job["output_lens"], job["stream_len"]

    def timed(prompts: list[list[int]], wanted: list[int]) -> float:
        start = time.perf_counter()
        got = generate(prompts, wanted)
        seconds = time.perf_counter() - start
        if got != sum(wanted):
            raise RuntimeError(f"{got} tokens came out instead of {sum(wanted)}")
        tick()
        return seconds

    others = Others()
    for prompts in job["warmup"]:
        timed(prompts, lens)
    elapsed = [timed(prompts, lens) for prompts in job["runs"]]
    if job["streams"]:
        timed([job["streams"][0]], [long])
    one = [timed([prompt], [1]) for prompt in job["streams"][1:]]
    full = [timed([prompt], [long]) for prompt in job["streams"][1:]]
    found = {"elapsed_times": elapsed, "seconds_for_1": one, "seconds_for_all": full, "stream_len": long}
    return {**found, "cores_of_others": others.cores()}


def peak_memory() -> int:
    """Bytes: the peaks of this process and of all below it, added up. Pages that they share count for each."""
    try:
        return sum(map(_peak, tree()))
    except OSError:  # no /proc
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return scale * sum(
            resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )


def tree() -> set[int]:
    """This process and all below it."""
    tree, parents = {os.getpid()}, _parents()
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def _parents() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:  # the name, in parentheses, may hold anything
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue  # it has ended
    return found


def _peak(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        if pid == os.getpid():
            raise
    return 0


def _workloads(generate: Generate, job: dict[str, Any]) -> dict[str, Any]:
    from workloads import Workloads  # beside this file, which another Python runs

    return Workloads(generate, job["vocab_size"], job["scale"], job["seed"]).run(job["workloads"])


def run(make: Callable[[dict[str, Any]], tuple[Generate, dict[str, Any]]]) -> None:
    """Do the job on standard input. ``make`` gives ``generate``, and facts such as versions."""
    job = json.load(sys.stdin)
    begun = time.time()
    generate, facts = make(job)
    made, ready = time.time() - begun, time.time() - job["started"]
    generate([[200] * 8 if job.get("workloads") else (job["streams"] or job["runs"][0])[0]], [1])
    result = {"engine_s": made, "ready_s": ready, "first_token_s": time.time() - job["started"], **facts}
    if job.get("workloads"):
        result["workloads"] = _workloads(generate, job)
    else:
        result |= load(generate, job)
    result["peak_memory_bytes"] = peak_memory()
    print(RESULT + json.dumps(result), flush=True)
