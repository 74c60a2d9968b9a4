"""Lines of logits with parameters for samplers, and what the contract draws from them: sorted, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.sampler import SamplingTensors

__all__ = ["SETTINGS", "SamplerLine", "chances", "make_logits", "picked", "tensors"]


@attrs.frozen(kw_only=True)
class SamplerLine:
    """Parameters of one line, as a request gives them."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


SETTINGS = {
    "greedy": SamplerLine(temperature=0.0),
    "temperature": SamplerLine(temperature=0.7),
    "hot": SamplerLine(temperature=2.5),
    "top-k": SamplerLine(temperature=1.3, top_k=7),
    "top-k of one": SamplerLine(top_k=1),
    "top-k beyond the vocabulary": SamplerLine(top_k=10**9),
    "top-p": SamplerLine(temperature=0.9, top_p=0.8),
    "tiny top-p": SamplerLine(temperature=0.9, top_p=1e-9),
    "min-p": SamplerLine(min_p=0.2),
    "min-p of one": SamplerLine(min_p=1.0),
    "all": SamplerLine(temperature=0.8, top_k=40, top_p=0.9, min_p=0.01),
}


def chances(logits: Tensor, line: SamplerLine) -> Tensor:
    """What the contract draws from: float64 [V] of logits float64 [V]."""
    if line.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
    p = ((logits - logits.max()) / line.temperature).softmax(-1)
    p = torch.where(p >= line.min_p * p.max(), p, 0.0)
    ordered, which = p.sort(descending=True, stable=True)
    if line.top_k:
        ordered[line.top_k :] = 0
    ordered = ordered / ordered.sum()
    if line.top_p < 1:
        ordered = torch.where(ordered.cumsum(0) - ordered < line.top_p, ordered, 0.0)
    return torch.zeros_like(p).scatter_(0, which, ordered / ordered.sum())


def picked(p: Tensor, noise: float) -> tuple[int, bool]:
    """The first token, in order of ids, whose cumulative probability exceeds the noise; whether it is a close thing."""
    ends = p.cumsum(0)
    token = int(torch.searchsorted(ends, torch.tensor([noise], dtype=ends.dtype), right=True))
    last = int(p.nonzero()[-1])
    return min(token, last), bool((ends - noise).abs().min() < 1e-5)


def tensors(
    lines: Sequence[SamplerLine], noise: Tensor, *, loose: bool = False, device: str = "cpu"
) -> SamplingTensors:
    """``loose``: the host says that lines may ask for anything, as of a call that is captured into a graph."""

    def column(name: str, dtype: torch.dtype) -> Tensor:
        return torch.tensor([getattr(line, name) for line in lines], dtype=dtype, device=device)

    drawn = [line for line in lines if line.temperature > 0]
    return SamplingTensors(
        temperature=column("temperature", torch.float32),
        top_k=column("top_k", torch.int64),
        top_p=column("top_p", torch.float32),
        min_p=column("min_p", torch.float32),
        noise=noise.to(device),
        any_greedy=loose or len(drawn) < len(lines),
        any_random=loose or bool(drawn),
        largest_top_k=max([line.top_k for line in drawn] + [50 * loose]),
        any_top_p=loose or any(line.top_p < 1 for line in drawn),
        any_min_p=loose or any(line.min_p > 0 for line in drawn),
    )


def make_logits(lines: int, vocab: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """[lines, V] without two that are equal among the likely ones: ties at a border are a matter of taste."""
    dice = torch.Generator().manual_seed(seed + vocab)
    if dtype == torch.float32:
        return torch.randn(lines, vocab, generator=dice) * 3
    likely = min(100, vocab)
    order = torch.stack([torch.randperm(likely, generator=dice) for _ in range(lines)])
    return torch.cat((order / 8 - 4, torch.full((lines, vocab - likely), -30.0)), 1).to(dtype)
