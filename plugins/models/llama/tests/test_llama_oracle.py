"""LlamaForCausalLM gives the logits of transformers' own, however the tokens reach it."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
import vllm_plugin_llama
from vllm_plugin_llama.model import LlamaForCausalLM

from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel

TOLERANCE = 1e-4  # of the range of the reference's logits, float32
BASE = {
    "vocab_size": 103,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS = {
    "plain": {},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
    "llama3": {"rope_parameters": LLAMA3},
    "one kv head": {"num_key_value_heads": 1},
    "no grouping": {"num_key_value_heads": 6},
    "gelu": {"hidden_act": "gelu_pytorch_tanh"},
}


def reference(overrides: dict) -> tuple[transformers.PreTrainedModel, dict]:
    """A random model whose logits spread and whose attention is far from uniform, and its config.json."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**copy.deepcopy(BASE | overrides))
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.normal_(0.0 if "bias" in name else 1.0, 0.5)
            else:
                # Queries and keys larger: scores that spread make attention pick.
                gain = 2.5 if "q_proj" in name or "k_proj" in name else 2.0 if "lm_head" in name else 1.2
                p.normal_(0.0, gain / p.shape[1] ** 0.5)
        if config.tie_word_embeddings:
            model.model.embed_tokens.weight.normal_(0.0, 0.4)
    return model, config.to_dict()


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request):
    model, config = reference(VARIANTS[request.param])
    return model, config, dict(model.state_dict())


def ours(config: dict, tensors: dict, **kwargs) -> PagedModel:
    return PagedModel(LlamaForCausalLM, config, tensors, chooser=HandChooser(vllm_plugin_llama), **kwargs)


def prompt(n: int, seed: int = 0) -> list[int]:
    return torch.randint(0, BASE["vocab_size"], (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def logits_of(model, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).logits[0]


def assert_close(got: torch.Tensor, want: torch.Tensor) -> None:
    spread = (want.max() - want.min()).item()
    assert want.std() > 1, "the reference's logits do not spread: the comparison would prove nothing"
    assert (got - want).abs().max().item() <= TOLERANCE * spread


def test_a_whole_prompt_gives_the_logits_of_transformers(pair):
    model, config, tensors = pair
    ids = prompt(75)
    paged = ours(config, tensors)
    assert_close(paged.step([(paged.row(), ids)])[0], logits_of(model, ids))


def test_a_ragged_batch_gives_each_prompt_its_own_logits(pair):
    model, config, tensors = pair
    prompts = [prompt(n, n) for n in (1, 33, 16, 7, 50)]
    paged = ours(config, tensors)
    for got, ids in zip(paged.step([(paged.row(), ids) for ids in prompts]), prompts, strict=True):
        assert_close(got, logits_of(model, ids))


def test_a_prompt_in_chunks_gives_the_same_logits(pair):
    model, config, tensors = pair
    ids = prompt(70)
    paged = ours(config, tensors)
    row = paged.row()
    got = [paged.step([(row, chunk)])[0] for chunk in (ids[:5], ids[5:6], ids[6:39], ids[39:])]
    assert_close(torch.cat(got), logits_of(model, ids))


def test_decoding_from_pages_beside_a_prefill_gives_the_same_logits(pair):
    model, config, tensors = pair
    first, second, third = prompt(40, 1), prompt(21, 2), prompt(30, 3)
    paged = ours(config, tensors, block_size=8)
    a, b, c = paged.row(), paged.row(), paged.row()
    paged.step([(a, first[:30]), (b, second[:19])])
    paged.step([(a, first[30:31]), (c, third[:28]), (b, second[19:20])])
    got = paged.step([(c, third[28:]), (a, first[31:]), (b, second[20:])])
    assert_close(got[0], logits_of(model, third)[28:])
    assert_close(got[1], logits_of(model, first)[31:])
    assert_close(got[2], logits_of(model, second)[20:])


def test_pages_shared_by_two_rows_serve_as_a_prefix_hit(pair):
    model, config, tensors = pair
    ids, other = prompt(48, 4), prompt(10, 5)
    paged = ours(config, tensors)
    first, second = paged.row(), paged.row()
    paged.step([(first, ids)])
    second.ids, second.pages = ids[:32], [table[:2] for table in first.pages]
    got = paged.step([(second, other)])[0]
    assert_close(got, logits_of(model, ids[:32] + other)[32:])


@pytest.mark.parametrize(
    "changed",
    [
        {"rms_norm_eps": 1e-2},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 510.0}},
        {"rope_parameters": LLAMA3},
        {"num_attention_heads": 3, "head_dim": 32, "num_key_value_heads": 1},
    ],
    ids=str,
)
def test_each_config_field_that_is_read_matters(changed):
    model, config = reference({})
    ids = prompt(64)
    wrong = ours(config | changed, dict(model.state_dict()))
    with pytest.raises(AssertionError):
        assert_close(wrong.step([(wrong.row(), ids)])[0], logits_of(model, ids))


@pytest.mark.parametrize("field", ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"])
def test_each_field_of_llama3_rope_matters(field):
    model, config = reference({"rope_parameters": LLAMA3})
    ids = prompt(64)
    changed = config["rope_parameters"] | {field: LLAMA3[field] * 1.5}
    wrong = ours(config | {"rope_parameters": changed}, dict(model.state_dict()))
    with pytest.raises(AssertionError):
        assert_close(wrong.step([(wrong.row(), ids)])[0], logits_of(model, ids))


def test_each_tensor_matters():
    model, config = reference({"attention_bias": True, "mlp_bias": True})
    ids, tensors = prompt(20), dict(model.state_dict())
    want = logits_of(model, ids)
    for name, tensor in tensors.items():
        # A key bias adds the same to all scores of a query up to rotary, so change it most.
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)) * (
            1.0 if "bias" in name else 0.05
        )
        wrong = ours(config, tensors | {name: tensor + noise}, num_pages=8)
        with pytest.raises(AssertionError):
            assert_close(wrong.step([(wrong.row(), ids)])[0], want)


def test_older_configs_write_rope_in_two_fields():
    model, config = reference({"rope_parameters": LLAMA3})
    ids = prompt(64)
    del config["rope_parameters"]
    config["rope_theta"] = LLAMA3["rope_theta"]
    config["rope_scaling"] = {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    paged = ours(config, dict(model.state_dict()))
    assert_close(paged.step([(paged.row(), ids)])[0], logits_of(model, ids))


def test_a_missing_field_is_named():
    config = {k: v for k, v in BASE.items() if k != "intermediate_size"}
    with pytest.raises(ValueError, match=r"lacks 'intermediate_size', which LlamaForCausalLM needs"):
        LlamaForCausalLM.from_config(config)
