"""What the kernels reach on this machine: ``python -m vllm_plugin_cpu_native.bench``."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery, SamplerQuery
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_plugin_cpu_native.limits import machine_limits
from vllm_plugin_cpu_native.linear import NativeLinear
from vllm_plugin_cpu_native.sampling import NativeSampler

SIZES = [(576, 960), (576, 3072), (1536, 576), (576, 49152)]  # inputs, outputs: SmolLM2-135M's
TOKENS = [1, 4, 32, 512]
MEMORY = 64 << 20  # bytes of weights that are multiplied in turn: more than caches hold


def seconds(work: Callable[[int], object], calls: int) -> float:
    """A call of ``work(i)``, the best of five rounds."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for i in range(calls):
            work(i)
        rounds.append((time.perf_counter() - start) / calls)
    return min(rounds)


def products(dtype: str) -> None:
    kind = getattr(torch, dtype)
    kernel = NativeLinear(OpQuery(op="linear", dtype=dtype, device=Device("cpu"), shape={}))
    for inputs, outputs in SIZES:
        copies = max(2, MEMORY // (inputs * outputs * kind.itemsize))
        weights = [torch.randn(outputs, inputs).to(kind) for _ in range(copies)]
        for tokens in TOKENS:
            x = torch.randn(tokens, inputs).to(kind)
            took = seconds(lambda i, x=x, weights=weights: kernel(x, weights[i]), copies)
            rate, read = 2 * tokens * inputs * outputs / took / 1e9, inputs * outputs * kind.itemsize / took / 1e9
            shape = f"{tokens:4} x {inputs} -> {outputs:5}"
            print(f"{dtype} {shape}: {took * 1e6:8.0f} us {rate:5.0f} GFLOP/s {read:4.0f} GB/s")


def sampling() -> None:
    rows, vocab = 32, 49152
    logits = (torch.randn(rows, vocab) * 2).bfloat16()
    sampler = NativeSampler(SamplerQuery(vocab_size=vocab, device=Device("cpu")))
    for name, temperature, top_k, top_p in (
        ("greedy", 0.0, 0, 1.0),
        ("0.6", 0.6, 0, 1.0),
        ("0.6, top-p", 0.6, 0, 0.95),
    ):
        params = SamplingTensors(
            temperature=torch.full((rows,), temperature), top_k=torch.full((rows,), top_k),
            top_p=torch.full((rows,), top_p), min_p=torch.zeros(rows), noise=torch.rand(rows, dtype=torch.float64),
            any_greedy=temperature == 0, any_random=temperature > 0, largest_top_k=top_k, any_top_p=top_p < 1,
            any_min_p=False,
        )  # fmt: skip
        took = seconds(lambda _, params=params: sampler(logits, params), 20)
        print(f"sampling {rows} rows of {vocab:,}, {name}: {took * 1e3:.2f} ms")


if __name__ == "__main__":
    for dtype in ("bfloat16", "float32"):
        if why := machine_limits(dtype):
            raise SystemExit(why)
        products(dtype)
    sampling()
