"""The kit passes a model that can be split over ranks, and fails one that is right on one rank only."""

from __future__ import annotations

from functools import partial

import pytest
import vllm_plugin_llama.model as right

from tests.testing.tiny_kit import Kit
from vllm_core.layers import DecoderLayer
from vllm_core.testing.rank_modes import SPLITS

STAGES, TENSOR, BOTH = SPLITS


def check(case, split, kit=Kit):
    kit().test_split_over_ranks_it_computes_the_same({"base": case}, ("base", split))


@pytest.mark.parametrize("split", SPLITS)
def test_a_model_that_can_be_split_passes(case, split):
    check(case, split)


class First(DecoderLayer):
    """Takes itself for the model's first layer where nothing was added up yet."""

    def forward(self, x, residual, batch):
        return super().forward(x * 1.1 if residual is None else x, residual, batch)


def test_a_layer_that_takes_the_first_of_a_stage_for_the_first_of_all_fails_in_stages(serve, monkeypatch):
    def layer(make, c, i):
        made = make(c, i)
        return First(made.attention, made.mlp) if i else made

    monkeypatch.setattr(right, "decoder_layer", partial(layer, right.decoder_layer))
    case = serve(right.LlamaForCausalLM)
    check(case, TENSOR)
    for split in (STAGES, BOTH):
        with pytest.raises(AssertionError, match="logits are off"):
            check(case, split)


def test_a_head_that_each_rank_scales_for_itself_fails_over_tensor_ranks(serve):
    class Own(right.LlamaForCausalLM):
        def logits(self, hidden):
            return super().logits(hidden) * (1 + self.head.group.rank)

    case = serve(Own)
    check(case, STAGES)
    for split in (TENSOR, BOTH):
        with pytest.raises(AssertionError, match="ranks of one stage have different logits"):
            check(case, split)


def test_a_sum_that_is_taken_before_the_ranks_have_met_fails(serve):
    class Early(right.LlamaForCausalLM):
        def embed(self, ids, batch):
            x = super().embed(ids, batch)
            return x + self.embedding.group.rank

    with pytest.raises(AssertionError, match="logits are off"):
        check(serve(Early), TENSOR)


def test_sizes_that_do_not_divide_are_skipped_with_the_reason_but_compared_in_stages(tmp_path, monkeypatch):
    class Odd(Kit):
        config = {**Kit.config, "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3}

    with pytest.raises(pytest.skip.Exception, match=r"base, two tensor ranks: .*query heads = 3 cannot be split"):
        check(Odd.make_case("base", tmp_path / "a"), TENSOR)
    with pytest.raises(pytest.skip.Exception, match=r"query heads = 3 .*; two pipeline stages agree"):
        check(Odd.make_case("base", tmp_path / "b"), BOTH)
    check(Odd.make_case("base", tmp_path / "c"), STAGES)

    class Fixed(right.LlamaForCausalLM):
        def forward(self, x, batch):
            return super().forward(x * 1.01, batch)

    monkeypatch.setattr(right, "LlamaForCausalLM", Fixed)
    with pytest.raises(AssertionError, match=r"two pipeline stages.*logits are off"):
        check(Odd.make_case("base", tmp_path / "d"), BOTH)


def test_what_a_plugin_says_it_cannot_do_is_skipped_with_its_reason(case):
    class Whole(Kit):
        cannot = {"ranks": "its layers know none"}

    with pytest.raises(pytest.skip.Exception, match=r"Whole cannot: ranks \(its layers know none\)"):
        check(case, STAGES, Whole)
