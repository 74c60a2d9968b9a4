"""Random weights: the same for a seed, whatever the split, and harmless."""

from __future__ import annotations

import torch
from torch import nn

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights.dummy import fill_dummy


def filled(model, seed=0):
    fill_dummy(model, seed)
    return {name: p.clone() for name, p in model.named_parameters()}


def test_the_seed_decides_every_value(tiny):
    first, again, other = filled(tiny(), 1), filled(tiny(), 1), filled(tiny(), 2)

    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first)


def test_no_two_parameters_are_alike_and_all_are_filled(tiny):
    values = filled(tiny())

    assert all(t.isfinite().all() for t in values.values())
    assert not torch.equal(values["layers.0.gate_up.weight"], values["layers.1.gate_up.weight"])
    assert not torch.equal(values["layers.0.gate_up.weight"][:6], values["layers.0.gate_up.weight"][6:])


def test_two_ranks_hold_the_halves_of_one(tiny):
    whole, ranks = filled(tiny()), [filled(tiny(r, 2)) for r in range(2)]

    for i in range(2):
        name = f"layers.{i}.gate_up.weight"
        both = torch.cat([ranks[0][name][:3], ranks[1][name][:3], ranks[0][name][3:], ranks[1][name][3:]])
        assert torch.equal(whole[name], both)


class Big(nn.Module):
    def __init__(self, leaf):
        super().__init__()
        self.matrix = leaf(weight={"": SlotRange((3000, 1000))})
        self.columns = leaf(weight={"": SlotRange((3000, 1000), ((0, 3000), (500, 1000)))})
        self.cube = leaf(weight={"": SlotRange((3, 1100, 1000))})
        self.norm = leaf(weight={"": SlotRange((1000,))}, bias={"": SlotRange((1000,))})


def test_matrices_keep_the_size_of_what_they_multiply(leaf):
    model = Big(leaf)
    fill_dummy(model, 3)
    x = torch.randn(64, 1000)

    assert 0.9 < (x @ model.matrix.weight.T).std() < 1.1
    assert abs(model.norm.weight.mean() - 1) < 0.01
    assert model.norm.bias.abs().max() < 0.1


def test_a_tensor_longer_than_the_noise_is_filled_to_the_end(leaf):
    model = Big(leaf)
    fill_dummy(model)

    assert model.matrix.weight.isfinite().all()
    assert model.cube.weight.isfinite().all()
    assert model.columns.weight.isfinite().all()
    assert len(model.matrix.weight[:, 0].unique()) > 2000  # rows do not repeat


def test_integer_and_half_parameters_are_filled(leaf):
    model = nn.Module()
    model.a = leaf(weight={"": SlotRange((32, 64))})
    model.a.weight = nn.Parameter(torch.full((32, 64), 99, dtype=torch.uint8), requires_grad=False)
    model.b = leaf(weight={"": SlotRange((32, 64))}).to(torch.bfloat16)

    fill_dummy(model)

    assert model.a.weight.max() < 16
    assert model.b.weight.isfinite().all()
