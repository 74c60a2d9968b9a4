"""Layers give what plain formulas give, with every option, from pages and in chunks."""

from __future__ import annotations

import attrs
import pytest
import torch

from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.device import Device
from vllm_core.layers import CausalLM, OffsetRMSNorm
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel

from .tiny import Config, TinyLM, assert_close, plain_logits, random_tensors

OPTIONS = {
    "plain": {},
    "layer norm and biases": {"norm": "layer", "bias": True},
    "norms of q and k": {"qk_norm": True},
    "weights of norms are distances from 1": {"norm": "offset"},
    "outputs normalised": {"post_norm": True},
    "logits capped": {"logit_cap": 4.0},
    "no positions": {"rope": {}},
    "part of a head rotated": {"rope": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    "one window": {"windows": (9, 9)},
    "window and full in turn": {"windows": (5, None)},
    "two windows": {"windows": (4, 11)},
    "soft cap": {"soft_cap": 1.5},
    "sinks": {"sinks": True},
    "scale": {"scale": 0.9},
    "tied head": {"tied": True},
    "one kv head": {"kv_heads": 1},
    "all at once": {
        "norm": "layer", "bias": True, "qk_norm": True, "windows": (5, None), "soft_cap": 3.0, "sinks": True,
        "post_norm": True, "logit_cap": 7.0,
    },
}  # fmt: skip
IDS = torch.randint(0, 53, (40,), generator=torch.Generator().manual_seed(3)).tolist()


def make_plan(device: str, dtype: torch.dtype = torch.float32) -> EnginePlan:
    return EnginePlan(HandChooser(), dtype, torch.device(device), Device("cpu"), {}, 64, 64)


@pytest.mark.parametrize("options", OPTIONS)
def test_chunks_and_decoding_beside_another_row_match_the_plain_formulas(options):
    config = Config(**OPTIONS[options])
    tensors = random_tensors(config)
    paged = PagedModel(TinyLM, attrs.asdict(config), tensors | {"unused": torch.zeros(1)}, block_size=4)
    row, other = paged.row(), paged.row()
    got = [paged.step([(row, IDS[:1])])[0], paged.step([(other, IDS[:7]), (row, IDS[1:23])])[1]]
    for i in range(23, 30):
        got.append(paged.step([(row, IDS[i : i + 1]), (other, IDS[i : i + 1])])[0])
    got.append(paged.step([(row, IDS[30:])])[0])
    assert_close(torch.cat(got), plain_logits(config, tensors, IDS))


# The others differ in their tensors, which loading and shapes would notice.
SAME_TENSORS = [name for name in OPTIONS if name not in ("plain", "layer norm and biases", "tied head", "one kv head")]


def test_an_offset_norm_multiplies_before_it_rounds():
    norm = OffsetRMSNorm(64, 1e-6)
    norm.bind(make_plan("cpu", torch.bfloat16))
    x, weight = torch.randn(5, 64).bfloat16(), (torch.randn(64) / 100).bfloat16()
    norm.weight.copy_(weight)
    norm.loaded()
    want = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + weight.double())
    assert torch.equal(norm(x), want.bfloat16())
    got, total = norm.add(x.clone(), x.clone())
    assert torch.equal(total, x + x)
    assert (got.double() - want).abs().max() < 0.02


@pytest.mark.parametrize("options", SAME_TENSORS)
def test_the_plain_formulas_read_each_option(options):
    """Else the comparison above could not tell whether the layers read it."""
    config = Config(**OPTIONS[options])
    tensors = random_tensors(config)
    without = Config(bias=config.bias, norm="layer" if config.norm == "layer" else "rms")
    with pytest.raises(AssertionError):
        assert_close(plain_logits(without, tensors, IDS), plain_logits(config, tensors, IDS), 1e-3)


def test_a_prompt_attends_both_ways_when_it_is_not_causal():
    config = Config(causal=False)
    tensors = random_tensors(config)
    paged = PagedModel(TinyLM, attrs.asdict(config), tensors)
    assert_close(paged.step([(paged.row(), IDS)])[0], plain_logits(config, tensors, IDS))


def test_binding_again_keeps_the_addresses_of_parameters():
    config = Config()
    paged = PagedModel(TinyLM, attrs.asdict(config), random_tensors(config))
    before = {name: p.data_ptr() for name, p in paged.model.named_parameters()}
    paged.model.bind(make_plan("cpu"))
    assert {name: p.data_ptr() for name, p in paged.model.named_parameters()} == before


def test_taps_keep_the_hidden_states_between_layers():
    config = Config(layers=2)
    tensors = random_tensors(config)
    paged = PagedModel(TinyLM, attrs.asdict(config), tensors)
    paged.model.layers.tap([0, 2])
    batch = paged.batch([(paged.row(), IDS)])
    with torch.inference_mode():
        x = paged.model.embed(torch.tensor(IDS), batch)
        start = x.clone()
        final = paged.model.forward(x, batch)
    assert torch.equal(batch.taps[0], start)
    assert torch.allclose(paged.model.norm(batch.taps[2]), final, atol=1e-5)
    assert set(batch.taps) == {0, 2}
    with pytest.raises(ValueError, match=r"cannot tap before layers \[3\]; there are 2"):
        paged.model.layers.tap([3])


def test_a_model_binds_and_runs_on_the_meta_device():
    config = Config(windows=(5, None))
    model = TinyLM(config)
    plan = make_plan("meta")
    model.bind(plan)
    caches = plan.finish(plan_caches, None)
    assert {type(g.spec).__name__ for g in caches.groups} == {"FullAttentionCache", "SlidingWindowCache"}
    ids = torch.empty(9, dtype=torch.int64, device="meta")
    batch = Batch(num_tokens=9, positions=ids, attention=[None, None], metadata=[None, None])
    assert model.logits(model.forward(model.embed(ids, batch), batch)).shape == (9, config.vocab)


def test_only_layers_can_be_children_of_a_bound_model():
    class Wrong(CausalLM):
        Config = Config
        weights = []

        def __init__(self, c):
            super().__init__(*(TinyLM(c)._modules[n] for n in ("embedding", "layers", "norm", "head")))
            self.extra = torch.nn.Linear(2, 2)

    with pytest.raises(TypeError, match="child 'extra' is a Linear"):
        PagedModel(Wrong, {}, {})
