"""How fast an attention backend is beside the core's plain one, in one run on one machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median

import torch

from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import make_query
from vllm_core.testing.attention_trial import Trial
from vllm_core.testing.kit import Measured

PLAIN = "reference"
BATCHES = {
    "8 rows decode behind 480 tokens": [(480, 1)] * 8,
    "a prompt of 480 tokens": [(0, 480)],
    "chunks of 64 tokens behind 240": [(240, 64)] * 4,
}
TOKENS = 8 * 512  # that the pages hold
ROUNDS, CALLS = 7, 3  # the two take turns, so that what slows the machine slows both


def speeds(asked: AskedBackend, settings: Mapping[str, object]) -> Iterator[Measured]:
    """``settings`` of the layer, as in the tests."""
    plain = AskedBackend(PLAIN, asked.device.type)
    query = make_query(settings, asked.device)
    for what, lengths in BATCHES.items():
        ours, theirs = (_Step(Trial(one, query, tokens=TOKENS), lengths) for one in (asked, plain))
        times = [(ours.seconds(), theirs.seconds()) for _ in range(ROUNDS + 1)][1:]  # the first compile and allocate
        ratio = median(b for _, b in times) / median(a for a, _ in times)
        sizes = f"{query.num_heads} heads of {query.k_dim}, {query.num_kv_heads} of them keys', {query.dtype}"
        yield Measured(f"{what}; {sizes}", ratio, "times as fast as the core's plain backend")


class _Step:
    """One step of a backend, to be run again and again: metadata, cache write and attention of each layer."""

    def __init__(self, trial: Trial, lengths: list[tuple[int, int]]) -> None:
        self.trial = trial
        with torch.inference_mode():
            self.step, self.layers = trial.prepare(trial.batch(lengths))

    def seconds(self) -> float:
        trial = self.trial
        self._wait()
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(CALLS):
                metadata = trial.backend.begin_step(self.step)
                for layer, pages in zip(self.layers, trial.pages, strict=True):
                    trial.backend.write(layer.k, layer.v, pages, self.step)
                    trial.backend.attend(layer.q, pages, self.step, metadata, layer.sinks)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.trial.device.type == "cuda":
            torch.cuda.synchronize(self.trial.device)
