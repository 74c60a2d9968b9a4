"""With prompt lookup a tiny Llama emits the tokens of plain decoding, in fewer steps."""

from __future__ import annotations

import pytest
import torch

from vllm_core import LLM, SamplingParams
from vllm_core.plugins import PluginError

CONFIG = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
SAID = [5, 9, 33, 7, 21, 40, 11, 2, 8, 30]
PROMPTS = [[*SAID, 3, *SAID, 4, *SAID[:5]], [17, 3, 5], [8, 30, 12] * 6]
TOKENS = 60
PAGE_BYTES = 4 * 2 * 2 * 2 * 8 * 4  # tokens, layers, K and V, heads, elements, bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("llama")
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:  # the next token depends on the last one most of all: greedy texts run in circles
        layer.self_attn.o_proj.weight.data *= 0.05
        layer.mlp.down_proj.weight.data *= 0.05
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def run(folder):
    """``run(params, **settings)`` -> token ids of each prompt, and steps that were launched."""

    def generate(params, prompts=PROMPTS, **settings):
        llm = LLM(folder, skip_tokenizer_init=True, max_model_len=128, block_size=4, dtype="float32", **settings)
        steps, launch = [], llm.built.executor.launch
        llm.built.executor.launch = lambda plan: (steps.append(plan), launch(plan))[1]
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
        llm.shutdown()
        if "speculative_config" not in settings:
            assert not any(o.metrics.num_accepted_drafts for o in outputs)
        elif len(outputs) == 1:  # some steps were launched ahead, before the end was known
            saved = outputs[0].metrics.num_accepted_drafts
            assert 0 <= len(steps) - (params.max_tokens - saved) <= 2
        return [o.outputs[0].token_ids for o in outputs], len(steps)

    return generate


GREEDY = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
SAMPLED = [SamplingParams(temperature=0.9, top_p=0.95, seed=s, max_tokens=TOKENS, ignore_eos=True) for s in (1, 2, 3)]
PENALIZED = SamplingParams(temperature=0.5, repetition_penalty=1.2, seed=5, max_tokens=TOKENS, ignore_eos=True)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, PENALIZED], ids=["greedy", "seeded", "penalized"])
@pytest.mark.parametrize("drafts", [1, 4])
def test_tokens_equal_those_of_plain_decoding(run, params, drafts):
    plain, plain_steps = run(params)
    drafted, steps = run(params, speculative_config=CONFIG | {"num_speculative_tokens": drafts})
    assert drafted == plain
    assert all(len(ids) == TOKENS for ids in plain)
    assert len(set(map(tuple, plain))) == len(plain)
    assert plain_steps >= TOKENS
    assert steps <= plain_steps + 1


def test_a_text_that_repeats_itself_takes_far_fewer_steps(run):
    longer = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    plain, plain_steps = run(longer, PROMPTS[:1])
    drafted, steps = run(longer, PROMPTS[:1], speculative_config=CONFIG)
    assert drafted == plain
    assert steps < 0.6 * plain_steps


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 103])
def test_it_ends_where_plain_decoding_ends(run, max_tokens):
    """103: at the longest sequence."""
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    assert run(params, [PROMPTS[0][:25]], speculative_config=CONFIG)[0] == run(params, [PROMPTS[0][:25]])[0]


def test_few_pages_and_chunked_prompts_change_nothing(run):
    tight = {"kv_cache_memory": 40 * PAGE_BYTES, "max_num_batched_tokens": 16, "max_num_seqs": 3}
    assert run(SAMPLED, speculative_config=CONFIG, **tight)[0] == run(SAMPLED)[0]


def test_a_wrong_key_ends_the_start_by_its_name(folder):
    with pytest.raises(PluginError) as error:
        LLM(folder, skip_tokenizer_init=True, speculative_config=CONFIG | {"prompt_lookup_maxx": 2})
    assert "'prompt_lookup_maxx', which this method does not read; did you mean 'prompt_lookup_max'?" in str(
        error.value
    )
