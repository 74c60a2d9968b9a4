"""Beyond the conformance kit, against transformers: all combinations of YaRN's fields, and the model that has alpha."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense import HunYuanDenseV1RotaryEmbedding
from vllm_plugin_rope_scaling import rope_variant

from vllm_core.interfaces.queries import RopeQuery
from vllm_core.layers import rope_parameters
from vllm_core.plugin import Offer, load_target

TRAINED = 64  # tokens of a sequence, in pre-training


def ours(kind, head_dim, length=4 * TRAINED, config=None, **params):
    """Frequencies [R / 2] that the table was made from, and the scaling of its cosines."""
    written = {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **params}, **(config or {})}
    query = RopeQuery(
        rope_type=kind,
        head_dim=head_dim,
        params=rope_parameters(written),
        max_position=length + 4,
        max_model_len=length,
    )
    offer = rope_variant(query)
    assert isinstance(offer, Offer), offer
    table = load_target(offer.target)(head_dim, {**query.params, **offer.options}, 2, torch.device("cpu"))
    assert (table.cos.dtype, table.rotary_dim) == (torch.float32, 2 * table.cos.shape[1])
    return torch.atan2(table.sin[1], table.cos[1]), table.cos[0, 0].item()


def theirs(kind, head_dim, seq_len=None, max_position_embeddings=4 * TRAINED, **params):
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=max_position_embeddings,
        rope_parameters={"rope_type": kind, "rope_theta": 500.0, **params},
    )
    return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=seq_len)


def assert_same(got, want):
    (frequencies, scaling), (expected, factor) = got, want
    torch.testing.assert_close(frequencies, expected, rtol=2e-6, atol=0)  # float32 through atan2
    assert scaling == pytest.approx(factor, rel=1e-6)


def grid(**values):
    """All combinations; a value of None leaves the field out."""
    for chosen in product(*values.values()):
        yield {name: value for name, value in zip(values, chosen, strict=True) if value is not None}


def test_dynamic_by_alpha_equals_transformers_hunyuan_at_every_length():
    from transformers import HunYuanDenseV1Config

    for alpha, head_dim in product([1.5, 1000.0], [16, 64]):
        hunyuan = {"factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
        rope = {"rope_type": "dynamic", "rope_theta": 500.0, "alpha": alpha, **hunyuan}
        config = HunYuanDenseV1Config(
            hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, rope_parameters=rope
        )
        layer = HunYuanDenseV1RotaryEmbedding(config)
        for length in (TRAINED, 9 * TRAINED):
            got = ours("dynamic", head_dim, length, {"max_position_embeddings": TRAINED}, alpha=alpha, **hunyuan)
            assert_same(got, (layer.inv_freq, layer.attention_scaling))


YARN = {
    "factor": [1.0, 4.0, 40],
    "beta_fast": [None, 8.0],
    "beta_slow": [None, 0.5],
    "truncate": [None, False],
    "attention_factor": [None, 1.7],
    "mscale": [None, 0, 0.7],
    "mscale_all_dim": [None, 0, 1.3],
    "partial_rotary_factor": [None, 0.5],
}


def test_yarn_equals_transformers_for_every_combination_of_its_fields():
    for trained in (TRAINED, 4096):
        for params in grid(**YARN):
            params["original_max_position_embeddings"] = trained
            assert_same(ours("yarn", 32, **params), theirs("yarn", 32, **params))
