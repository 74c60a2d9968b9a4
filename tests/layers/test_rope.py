"""Rope parameters as configs write them, and tables of several position axes."""

from __future__ import annotations

import pytest
import torch

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import Rotary, rope_parameters
from vllm_core.layers.rope_default import default_rope
from vllm_core.ops import rotary


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({}, {"rope_type": "default", "rope_theta": 10000.0}),
        ({"rope_theta": 5.0, "rope_scaling": None}, {"rope_type": "default", "rope_theta": 5.0}),
        ({"rope_theta": 5.0, "rope_scaling": {"type": "x", "factor": 2}},
         {"rope_type": "x", "rope_theta": 5.0, "factor": 2}),
        ({"rope_parameters": {"rope_type": "x", "rope_theta": 7.0}, "rope_theta": 5.0},
         {"rope_type": "x", "rope_theta": 7.0}),
        ({"partial_rotary_factor": 0.5}, {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
    ],
)  # fmt: skip
def test_both_ways_of_writing_rope_parameters_are_read(config, want):
    assert rope_parameters(config) == want


def test_a_share_of_a_head_that_cannot_be_rotated_is_an_error():
    with pytest.raises(ValueError, match="of 10 elements rotates 5, which is not an even number"):
        default_rope(10, {"rope_theta": 10.0, "partial_rotary_factor": 0.5}, 4, torch.device("cpu"))
    with pytest.raises(ValueError, match="lack 'rope_theta'"):
        default_rope(10, {}, 4, torch.device("cpu"))


def test_each_section_of_frequencies_takes_its_own_axis_of_positions():
    layer = Rotary(8, {})
    base = default_rope(8, {"rope_theta": 10.0}, 32, torch.device("cpu"))
    layer.table = RotaryTable(cos=base.cos, sin=base.sin, rotary_dim=8, sections=(1, 2, 1))
    layer.key, layer.rotate, layer.interleaved = "k", rotary, False
    positions = torch.tensor([[3, 5], [7, 11], [13, 17]])
    batch = Batch(num_tokens=2, positions=positions, attention=[], metadata=[])
    x = torch.randn(2, 1, 8)
    got = layer(x.clone(), batch)
    axis = [0, 1, 1, 2]
    cos = torch.stack([base.cos[positions[a], i] for i, a in enumerate(axis)], -1)
    sin = torch.stack([base.sin[positions[a], i] for i, a in enumerate(axis)], -1)
    assert torch.equal(got, rotary(x.clone(), cos, sin))
    batch.positions, batch.shared = positions[:2], {}
    with pytest.raises(ValueError, match=r"2 axes and the rotary table has sections \(1, 2, 1\)"):
        layer(x, batch)


def test_the_rows_of_a_step_are_looked_up_once_for_all_layers():
    first, second = Rotary(8, {}), Rotary(8, {})
    table = default_rope(8, {"rope_theta": 10.0}, 32, torch.device("cpu"))
    for layer in (first, second):
        layer.table, layer.key, layer.rotate, layer.interleaved = table, id(table), rotary, False
    batch = Batch(num_tokens=2, positions=torch.tensor([3, 9]), attention=[], metadata=[])
    first(torch.randn(2, 1, 8), batch)
    rows = batch.shared[id(table)]
    second(torch.randn(2, 1, 8), batch)
    assert batch.shared[id(table)] is rows
    assert len(batch.shared) == 1
