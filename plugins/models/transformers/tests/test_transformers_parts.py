"""What finds out about a model: its masks, tokens that meet, where tensors go, tables that nobody fills."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn
from vllm_plugin_transformers.causal_lm import TransformersForCausalLM
from vllm_plugin_transformers.errors import CannotServe
from vllm_plugin_transformers.fill import BUILT, make_tensors
from vllm_plugin_transformers.places import find_places, make_rules, without_place
from vllm_plugin_transformers.tokenwise import TokenWise
from vllm_plugin_transformers.trace import Following, window_of

from vllm_core.weights import Table

TOKENS = 7


def masks():
    from transformers import masking_utils as m

    return {
        "causal": ({"mask_function": m.causal_mask_function}, None),
        "window": ({"mask_function": m.sliding_window_causal_mask_function(5), "local_size": 5}, 5),
        "window of one": ({"mask_function": m.sliding_window_causal_mask_function(1), "local_size": 1}, 1),
        "window, not as said": ({"mask_function": m.sliding_window_causal_mask_function(5), "local_size": 6}, "no"),
        "chunks": ({"mask_function": m.chunked_causal_mask_function(5, torch.zeros(1)), "local_size": 5}, "no"),
        "both directions": ({"mask_function": m.bidirectional_mask_function}, "no"),
    }


@pytest.mark.parametrize(
    "name", ["causal", "window", "window of one", "window, not as said", "chunks", "both directions"]
)
def test_a_mask_is_a_window_or_is_refused(name):
    settings, window = masks()[name]
    if window == "no":
        with pytest.raises(CannotServe, match="masks tokens otherwise"):
            window_of(settings)
    else:
        assert window_of(settings) == window


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: nn.functional.conv1d(x.mT, x.new_empty(8, 1, 4), groups=8, padding=3),
        lambda x: nn.functional.conv1d(x.mT, x.new_empty(4, 8, 3), padding=1),
        lambda x: nn.functional.scaled_dot_product_attention(x, x, x),
        lambda x: nn.functional.pad(x, (0, 0, 1, 0)),
        lambda x: x[:, 1:],
        lambda x: x.cumsum(1),
        lambda x: x.roll(1, 1),
        lambda x: x.mean(1, keepdim=True),
        lambda x: x @ x.mT,
        lambda x: x.mT @ x,
        lambda x: x.max(),
    ],
    ids=[
        "causal convolution",
        "convolution",
        "attention of its own",
        "shift",
        "slice",
        "sum so far",
        "roll",
        "mean",
        "scores",
        "outer products",
        "largest",
    ],
)
def test_tokens_that_meet_are_noticed(mixes):
    x = torch.empty(1, TOKENS, 8, device="meta")
    with TokenWise(TOKENS), pytest.raises(CannotServe, match="tokens meet outside of attention"):
        mixes(x)


def test_what_is_computed_token_by_token_passes():
    x, weight = (torch.empty(*shape, device="meta") for shape in ((1, TOKENS, 8), (12, 8)))
    with TokenWise(TOKENS):
        y = nn.functional.linear(x, weight).view(1, TOKENS, 3, 4).transpose(1, 2)
        y = torch.cat([y[..., 2:], y[..., :2], y[..., :0]], -1).softmax(-1)
        best = x.view(TOKENS, 8).topk(2, dim=-1).values.sort(-1).values.cumsum(-1)
        assert (y.shape, best.shape) == ((1, 3, TOKENS, 4), (TOKENS, 2))


class Mine(nn.Module):
    """An attention module."""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"position_bias": torch.zeros(1, 2, 3, 3)},
            "gives attention position_bias, which paged attention does not take",
        ),
        ({"is_causal": False}, "looks at later tokens"),
        ({"scaling": torch.ones(2)}, "scales scores by a Tensor"),
        ({"mask": None}, "attends without a causal mask"),
        ({"mask": torch.zeros(1, 1, 3, 3)}, "a mask that is made in the model's own way"),
        ({"keys": 5}, "attends to other tokens than it is given"),
    ],
)
def test_attention_that_pages_cannot_give_is_refused(changes, why):
    module, given = Mine(), {"scaling": 0.5, "dropout": 0.0, "use_cache": False, "output_attentions": None, **changes}
    asked = Following({module: "layers.0"})
    fine = asked.mask({"q_length": 3, "kv_length": 3, "mask_function": masks()["causal"][0]["mask_function"]})
    q, mask, keys = torch.empty(1, 2, 3, 8, device="meta"), given.pop("mask", fine), given.pop("keys", 3)
    k = torch.empty(1, 1, keys, 8, device="meta")
    with pytest.raises(CannotServe, match=f"Mine .*{why}"):
        asked.attention(module, q, k, k, mask, given)
    out = Following({module: "layers.0"}).attention(module, q, k[:, :, :3], k[:, :, :3, :6], fine, {"scaling": 0.5})
    assert out.shape == (1, 3, 2, 6)


def test_two_layers_that_share_keys_are_refused():
    one, two = Mine(), Mine()
    asked = Following({one: "layers.0", two: "layers.1"})
    mask = asked.mask({"q_length": 3, "kv_length": 3, "mask_function": masks()["causal"][0]["mask_function"]})
    q, k = torch.empty(1, 2, 3, 8, device="meta"), torch.empty(1, 1, 3, 8, device="meta")
    asked.attention(one, q, k, k, mask, {})
    assert [(call.heads, call.kv_heads, call.scale) for call in asked.calls] == [(2, 1, 8**-0.5)]
    with pytest.raises(CannotServe, match="reads the keys of another layer"):
        asked.attention(two, q, k, k, mask, {})


def olmoe():
    import transformers

    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2}
    config = transformers.OlmoeConfig(**sizes, num_attention_heads=4, num_experts=3, num_experts_per_tok=2)
    return config.to_dict() | {"architectures": ["OlmoeForCausalLM"]}


def test_experts_that_are_stored_one_by_one_share_a_rule_and_fill_their_part():
    model = TransformersForCausalLM.from_config(olmoe())
    rules = [str(rule) for rule in model.weights]
    assert len(rules) < 40
    table = Table(model.weights)
    for place in model.places:
        match = table.match(place.name)
        assert (f"{match.path}.{match.parameter}", match.slot) == (f"hf.{place.target}", place.slot)
    up = next(p for p in model.places if p.name == "model.layers.1.mlp.experts.2.up_proj.weight")
    assert up.target == "model.layers.1.mlp.experts.gate_up_proj"
    assert (up.range.shape, up.range.target) == ((24, 32), ((2, 3), (24, 48), (0, 32)))


def test_tensors_that_transformers_does_not_read_are_not_read():
    model = TransformersForCausalLM.from_config(olmoe())
    model.hf._keys_to_ignore_on_load_unexpected = [r"^model\.layers\.(2|3).*", r"(^|\.)mtp\..*", r"model\.norm.*"]
    table = Table(without_place(model.hf, model.places) + model.weights)
    for name in ("model.layers.2.mlp.gate.weight", "mtp.norm.weight", "model.mtp.layers.0.norm.weight"):
        assert table.match(name).reason == "transformers' model has nothing of that name"
    assert table.match("model.norm.weight").path == "hf.model.norm"  # it has this one
    assert table.match("model.layers.1.mlp.gate.weight").path == "hf.model.layers.1.mlp.gate"


def test_numbers_that_do_not_correspond_get_rules_of_their_own():
    model = TransformersForCausalLM.from_config(olmoe())
    places, tied = find_places(model.hf)
    assert not tied
    swapped = [attrs.evolve(p, slot=p.slot.replace(".0", ".9").replace(".1", ".0").replace(".9", ".1")) for p in places]
    table = Table(make_rules(swapped, {}, "hf", "model"))
    for place in swapped:
        assert table.match(place.name).slot == place.slot


class WithTable(nn.Module):
    """As a model of transformers, with a table that only its constructor computes."""

    def __init__(self, again):
        super().__init__()
        self.again = again
        self.register_buffer("slopes", torch.empty(3, dtype=torch.float32, device="meta"), persistent=False)
        self.weight = nn.Parameter(torch.empty(2, dtype=BUILT, device="meta"))

    def _init_weights(self, module):
        if self.again:
            module.slopes.copy_(torch.arange(3.0))


def test_tables_are_computed_and_weights_get_the_engines_dtype():
    model = WithTable(again=True)
    make_tensors(model, torch.float16, torch.device("cpu"))
    assert model.slopes.tolist() == [0, 1, 2]  # in float32, as it was made
    assert (model.weight.dtype, model.weight.requires_grad) == (torch.float16, False)


def test_a_table_that_nobody_computes_again_is_refused():
    with pytest.raises(CannotServe, match="its table slopes is computed where it is constructed"):
        make_tensors(WithTable(again=False), torch.float32, torch.device("cpu"))


def test_tied_weights_stay_one_tensor():
    model = TransformersForCausalLM.from_config(olmoe() | {"tie_word_embeddings": True})
    make_tensors(model.hf, torch.float32, torch.device("cpu"))
    assert model.hf.lm_head.weight is model.hf.model.embed_tokens.weight
    assert "ignore('lm_head.weight')" in [str(rule) for rule in model.weights]
