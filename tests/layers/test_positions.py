"""Learned positions."""

from __future__ import annotations

import pytest
import torch

from vllm_core.interfaces.batch import Batch
from vllm_core.layers import PositionEmbedding

from .test_model_options import make_plan


@pytest.mark.parametrize("offset", [0, 2])
def test_each_token_gets_the_vector_of_its_position(offset):
    layer = PositionEmbedding(7, 3, offset)
    layer.bind(make_plan("cpu"))
    assert layer.loads["weight"][""].shape == (7 + offset, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(7 + offset).unsqueeze(1).expand(-1, 3))
    batch = Batch(num_tokens=4, positions=torch.tensor([0, 6, 0, 1]), attention=[], metadata=[])
    assert (layer(batch) - offset).tolist() == [[p] * 3 for p in (0, 6, 0, 1)]
