"""Frequencies and attention factors against transformers' own; what it lacks, against float64 from the sources."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
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
FACTORS = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [1.5 + i for i in range(8)]}


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


@pytest.mark.parametrize("head_dim", [16, 64])
def test_linear_equals_transformers(head_dim):
    for params in grid(factor=[1.0, 2.5, 8], partial_rotary_factor=[None, 0.5]):
        assert_same(ours("linear", head_dim, **params), theirs("linear", head_dim, **params))


@pytest.mark.parametrize("length", [TRAINED // 2, TRAINED, TRAINED + 1, 7 * TRAINED])
def test_dynamic_equals_transformers_for_a_sequence_of_the_longest_length(length):
    for params in grid(factor=[1.0, 2.5, 8], partial_rotary_factor=[None, 0.5], rope_theta=[500.0, 1e6]):
        want = theirs("dynamic", 32, seq_len=length, max_position_embeddings=TRAINED, **params)
        longer = {"max_position_embeddings": max(length, TRAINED)}
        got = ours("dynamic", 32, length, longer, original_max_position_embeddings=TRAINED, **params)
        assert_same(got, want)
        assert_same(ours("dynamic", 32, length, {"max_position_embeddings": TRAINED}, **params), want)


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


def test_yarn_without_a_factor_takes_the_ratio_of_the_lengths_as_transformers_does():
    params = {"factor": None, "original_max_position_embeddings": TRAINED}
    assert_same(
        ours("yarn", 32, config={"max_position_embeddings": 4 * TRAINED}, **params), theirs("yarn", 32, **params)
    )


def test_yarn_without_an_original_length_takes_the_model_s_as_transformers_does():
    got = ours("yarn", 32, config={"max_position_embeddings": 4 * TRAINED}, factor=3.0)
    assert_same(got, theirs("yarn", 32, factor=3.0))


@pytest.mark.parametrize("length", [TRAINED // 2, TRAINED, TRAINED + 1])
def test_longrope_equals_transformers_for_a_sequence_of_the_longest_length(length):
    for params in grid(factor=[None, 0.5, 3.0], attention_factor=[None, 1.7]):
        params |= {"original_max_position_embeddings": TRAINED, **FACTORS}
        got = ours("longrope", 16, length, {"max_position_embeddings": 4 * TRAINED}, **params)
        assert_same(got, theirs("longrope", 16, seq_len=length, **params))
        for alias in ("su",):
            assert_same(ours(alias, 16, length, {"max_position_embeddings": 4 * TRAINED}, **params), got)


def test_room_for_drafts_does_not_make_a_sequence_long():
    params = rope_parameters({
        "rope_scaling": {"type": "longrope", **FACTORS},
        "max_position_embeddings": 4 * TRAINED,
        "original_max_position_embeddings": TRAINED,
    })  # fmt: skip
    queries = [
        RopeQuery(rope_type="longrope", head_dim=16, params=params, max_position=TRAINED + extra, max_model_len=TRAINED)
        for extra in (1, 6)
    ]
    assert rope_variant(queries[0]) == rope_variant(queries[1])


def test_the_two_magnitudes_of_phimoe_replace_the_attention_factor():
    params = {"original_max_position_embeddings": TRAINED, "short_mscale": 1.2, "long_mscale": 1.3, **FACTORS}
    assert ours("longrope", 16, TRAINED, **params)[1] == pytest.approx(1.2)
    assert ours("longrope", 16, TRAINED + 1, attention_factor=1.7, **params)[1] == pytest.approx(1.3)


# From here on in float64, from the sources named in README.md.


def plain(size, theta=500.0):
    return theta ** (-np.arange(0, size, 2) / size)


@pytest.mark.parametrize("factor", [1.0, 2.5, 8])
def test_ntk_equals_its_publication(factor):
    for size in (16, 64):
        i = np.arange(size // 2)
        fixed = (500.0 * factor) ** (-2 * i / size) / factor ** (2 / size)
        assert_same(ours("ntk", size, factor=factor), (torch.tensor(fixed, dtype=torch.float32), 1.0))
        assert fixed[-1] == pytest.approx(plain(size)[-1] / factor)
        for b in (0.625, 1.0, 2):
            a = math.log(factor) / (size / 2) ** b
            mixed = plain(size) / np.exp(a * (i + 1) ** b)
            got = ours("ntk", size, factor=factor, mixed_b=b)
            assert_same(got, (torch.tensor(mixed, dtype=torch.float32), 1.0))


def yarn64(size, factor, beta_fast=32, beta_slow=1, extrapolation_factor=1.0, **_):
    """Frequencies as in DeepSeek-V2's modeling_deepseek.py and jquesnelle/yarn."""

    def dimension(turns):
        return size * math.log(TRAINED / (turns * 2 * math.pi)) / (2 * math.log(500.0))

    low, high = max(math.floor(dimension(beta_fast)), 0), min(math.ceil(dimension(beta_slow)), size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
    mask = (1 - ramp) * extrapolation_factor
    return plain(size) / factor * (1 - mask) + plain(size) * mask


def magnitude64(factor, weight=1.0):
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def test_deepseek_yarn_equals_its_publication():
    values = {
        "factor": [1.0, 4.0, 40],
        "beta_fast": [None, 8.0],
        "beta_slow": [None, 0.5],
        "mscale": [None, 0, 0.707],
        "mscale_all_dim": [None, 0, 1.3],
        "attn_factor": [None, 1.1],
        "extrapolation_factor": [None, 0.6],
    }
    for params in grid(**values):
        scaling = magnitude64(params["factor"], params.get("mscale", 1)) * params.get("attn_factor", 1)
        scaling /= magnitude64(params["factor"], params.get("mscale_all_dim", 0))
        want = torch.tensor(yarn64(32, **params), dtype=torch.float32), scaling
        for name in ("deepseek_yarn", "deepseek_llama_scaling"):
            assert_same(ours(name, 32, original_max_position_embeddings=TRAINED, **params), want)


def test_the_fields_of_yarn_that_transformers_lacks_equal_their_publication():
    values = {"attn_factor": [None, 1.1], "extrapolation_factor": [None, 0.6], "apply_yarn_scaling": [None, False]}
    for params in grid(factor=[4.0], **values):
        paper = magnitude64(4.0) if params.get("apply_yarn_scaling", True) else 1.0
        want = torch.tensor(yarn64(32, **params), dtype=torch.float32), paper * params.get("attn_factor", 1)
        assert_same(ours("yarn", 32, original_max_position_embeddings=TRAINED, **params), want)
