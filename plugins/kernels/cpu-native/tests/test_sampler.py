"""Drawn tokens and probabilities against sorting and running sums in float64."""

from __future__ import annotations

import pytest
import torch
from vllm_plugin_cpu_native.limits import machine_limits
from vllm_plugin_cpu_native.sampling import NativeSampler

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import SamplerQuery
from vllm_core.interfaces.sampler import SamplingTensors

pytestmark = pytest.mark.skipif(bool(machine_limits("float32")), reason=machine_limits("float32"))
LINES = 24
SETTINGS = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.7},
    "top-k": {"temperature": 1.3, "top_k": 7},
    "top-k of one": {"temperature": 1.0, "top_k": 1},
    "top-k beyond the vocabulary": {"temperature": 1.0, "top_k": 10**9},
    "top-p": {"temperature": 0.9, "top_p": 0.8},
    "tiny top-p": {"temperature": 0.9, "top_p": 1e-9},
    "min-p": {"temperature": 1.0, "min_p": 0.2},
    "all": {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.01},
}


def tensors(lines: list[dict[str, float]]) -> SamplingTensors:
    def column(name: str, default: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([line.get(name, default) for line in lines], dtype=dtype)

    return SamplingTensors(
        temperature=column("temperature", 1.0, torch.float32),
        top_k=column("top_k", 0, torch.int64),
        top_p=column("top_p", 1.0, torch.float32),
        min_p=column("min_p", 0.0, torch.float32),
        noise=torch.rand(len(lines), dtype=torch.float64),
        any_greedy=any(line.get("temperature") == 0 for line in lines),
        any_random=any(line.get("temperature") != 0 for line in lines),
        largest_top_k=int(max(line.get("top_k", 0) for line in lines)),
        any_top_p=any("top_p" in line for line in lines),
        any_min_p=any("min_p" in line for line in lines),
    )


def exact(logits: torch.Tensor, line: dict[str, float]) -> torch.Tensor:
    """Probabilities, float64 [V]."""
    logits = logits.double()
    if line.get("temperature") == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
    p = (logits / line.get("temperature", 1.0)).softmax(-1)
    kept = p >= line.get("min_p", 0.0) * p.max()
    if 0 < line.get("top_k", 0) < len(p):
        kept &= p >= p.sort(descending=True).values[int(line["top_k"]) - 1]
    p = torch.where(kept, p, 0.0)
    if line.get("top_p", 1.0) < 1:
        order = (p / p.sum()).sort(descending=True)
        before = order.values.cumsum(0) - order.values
        p[order.indices[before >= line["top_p"]]] = 0
    return p / p.sum()


@pytest.mark.parametrize("vocab", [1, 15, 1000, 3001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [*SETTINGS, "mixed"])
def test_what_is_drawn_is_what_sorting_in_float64_draws(vocab, dtype, settings):
    torch.manual_seed(vocab)
    lines = [
        list(SETTINGS.values())[i % len(SETTINGS)] if settings == "mixed" else SETTINGS[settings] for i in range(LINES)
    ]
    logits = torch.randn(LINES, vocab) * 3
    # No two equal, in bfloat16 either: ties at a border are a matter of taste.
    if dtype != torch.float32:
        logits[:, 100:] = -30.0
        logits[:, :100] = torch.stack([torch.randperm(min(100, vocab)) for _ in range(LINES)]) / 8 - 4
    logits = logits.to(dtype)
    params, sampler = tensors(lines), NativeSampler(SamplerQuery(vocab_size=vocab, device=Device("cpu")))
    drawn, probs = sampler(logits, params), sampler.probs(logits, params)
    for i, line in enumerate(lines):
        want = exact(logits[i], line)
        assert (probs[i].double() - want).abs().max() < 1e-5
        assert want[drawn[i]] > 0
        ends = want.cumsum(0)
        noise = params.noise[i]
        token = int(torch.searchsorted(ends, noise, right=True).clamp_max(vocab - 1))
        assert int(drawn[i]) == token or (ends - noise).abs().min() < 1e-5


def test_a_forbidden_token_is_never_drawn_and_equal_logits_give_the_first():
    logits = torch.full((3, 40), float("-inf"))
    logits[:, 7], logits[:, 30] = 2.0, 2.0
    lines = [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 30, "top_p": 0.99}]
    sampler = NativeSampler(SamplerQuery(vocab_size=40, device=Device("cpu")))
    for _ in range(50):
        drawn = sampler(logits, tensors(lines)).tolist()
        assert drawn[0] == 7
        assert set(drawn) <= {7, 30}


def test_draws_have_the_distribution():
    torch.manual_seed(0)
    logits = torch.randn(1, 12).expand(20_000, -1)
    sampler = NativeSampler(SamplerQuery(vocab_size=12, device=Device("cpu")))
    drawn = sampler(logits, tensors([{"temperature": 1.0}] * 20_000)).bincount(minlength=12).double()
    want = exact(logits[0], {}) * 20_000
    assert ((drawn - want) ** 2 / want).sum() < 31.3  # chi-square, 11 degrees of freedom, p = 0.001
