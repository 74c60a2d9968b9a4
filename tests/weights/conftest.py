"""Small models and checkpoints for the tests of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights import ignore, rule


class Leaf(nn.Module):
    """A bound layer as the loader sees it: parameters and ``loads``."""

    def __init__(self, **slots: dict[str, SlotRange]):
        super().__init__()
        self.loads = slots
        self.calls = 0
        for name, ranges in slots.items():
            first = next(iter(ranges.values()))
            ends = [
                r.target or tuple((0, b - a) for a, b in r.source or [(0, n) for n in r.shape]) for r in ranges.values()
            ]
            shape = [max(e[d][1] for e in ends) for d in range(len(first.shape))]
            self.register_parameter(name, nn.Parameter(torch.full(shape, torch.nan), requires_grad=False))

    def loaded(self):
        self.calls += 1


def fused(columns: int, rank: int = 0, ranks: int = 1, **rows: int) -> dict[str, SlotRange]:
    """Slots of these many rows one after the other, each split over ranks by rows."""
    slots, at = {}, 0
    for name, n in rows.items():
        share = n // ranks
        source = ((rank * share, (rank + 1) * share), (0, columns))
        slots[name] = SlotRange((n, columns), source, ((at, at + share), (0, columns)))
        at += share
    return slots


class Tiny(nn.Module):
    """Two layers of fused gate and up, a norm and an embedding; split by rows over ``ranks``."""

    weights = [
        rule("model.embed.{w}", "embed.{w}"),
        rule("model.layers.{i}.{x:gate|up}_proj.{w}", "layers.{i}.gate_up.{w}", slot="{x}"),
        rule("model.layers.{i}.norm.{w}", "layers.{i}.norm.{w}"),
        ignore("inv_freq", "computed, not loaded"),
    ]

    def __init__(self, rank: int = 0, ranks: int = 1):
        super().__init__()
        self.embed = Leaf(weight={"": SlotRange((10, 4))})
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "gate_up": Leaf(weight=fused(4, rank, ranks, gate=6, up=6)),
                    "norm": Leaf(weight={"": SlotRange((4,))}),
                }
            )
            for _ in range(2)
        )


def tiny_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    out = {"model.embed.weight": torch.randn(10, 4), "model.layers.0.inv_freq": torch.ones(2)}
    for i in range(2):
        out[f"model.layers.{i}.gate_proj.weight"] = torch.randn(6, 4)
        out[f"model.layers.{i}.up_proj.weight"] = torch.randn(6, 4)
        out[f"model.layers.{i}.norm.weight"] = torch.randn(4)
    return out


class Memory:
    """A weight source over tensors in memory that notes what is read."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        from vllm_core.interfaces.weights import TensorInfo

        self.data = tensors
        self.reads: list[tuple] = []
        self.infos = {
            k: TensorInfo(k, tuple(t.shape), str(t.dtype).removeprefix("torch."), t.nbytes) for k, t in tensors.items()
        }

    def tensors(self):
        return self.infos

    def read(self, name, slices=()):
        self.reads.append((name, slices))
        return self.data[name][tuple(slice(*s) for s in slices)] if slices else self.data[name]

    def close(self):
        self.data = {}


@pytest.fixture
def tiny():
    return Tiny


@pytest.fixture
def leaf():
    return Leaf


@pytest.fixture
def memory():
    return Memory


@pytest.fixture
def tensors():
    return tiny_tensors()
