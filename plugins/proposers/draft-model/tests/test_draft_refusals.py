"""What a draft model is refused for, by name, before any weight is read."""

from __future__ import annotations

import json

import pytest
from vllm_plugin_draft_model import draft_proposer

from vllm_core import LLM
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import ProposerQuery
from vllm_core.plugin import Refusal
from vllm_core.plugins import PluginError

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 6,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
WORDS = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}


def ask(method="draft_model", **config):
    query = ProposerQuery(method=method, num_drafts=3, architecture="X", config=config, device=Device("cpu"))
    return draft_proposer(query)


@pytest.fixture
def folder(tmp_path):
    """``folder(name, words, **fields)``: a checkpoint without weights, with a tokenizer if there are words."""

    def make(name, words=None, added=(), **fields):
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps({**LLAMA, **fields}))
        if words is not None:
            extra = [{"id": i, "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False} for word, i in added]  # fmt: skip
            tokenizer = {
                "version": "1.0",
                "added_tokens": extra,
                "pre_tokenizer": {"type": "Whitespace"},
                "model": {"type": "WordLevel", "vocab": words, "unk_token": "a"},
            }
            (path / "tokenizer.json").write_text(json.dumps(tokenizer))
            (path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        return str(path)

    return make


def start(served, draft, **settings):
    keys = {"method": "draft_model", "model": draft, "num_speculative_tokens": 2}
    return LLM(
        served,
        load_format="dummy",
        dtype="float32",
        speculative_config=keys,
        skip_tokenizer_init=True,
        **{"max_model_len": 64, **settings},
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "lacks 'model'"),
        ({"model": ""}, "'model' must be a name, not ''"),
        ({"model": None}, "'model' must be a name, not None"),
        ({"model": "x", "revision": 3}, "'revision' must be a name, not 3"),
        (
            {"model": "x", "draft_sample_method": "gready"},
            "must be 'greedy' or 'probabilistic', or left out, not 'gready'",
        ),
        ({"model": "x", "modle": "y"}, "'modle', which this method does not read; did you mean 'model'?"),
        (
            {"model": "x", "prompt_lookup_max": 3},
            "'prompt_lookup_max', which this method does not read; it has 'model'",
        ),
    ],
)
def test_wrong_keys_are_refused_by_name(config, words):
    answer = ask(**config)
    assert isinstance(answer, Refusal)
    assert words in answer.reason
    assert '"num_speculative_tokens": 3, "model": a folder' in answer.remedy


def test_other_methods_are_left_to_others():
    assert ask("eagle", model="x") is None


def test_a_model_that_is_not_there_is_named(folder):
    with pytest.raises(ValueError, match=r'speculative_config: the model "no/such/model" was not found'):
        start(folder("it"), "no/such/model")


def test_a_draft_for_shorter_sequences_is_refused_with_what_starts(folder):
    draft = folder("draft", max_position_embeddings=48)
    with pytest.raises(ValueError, match=r"was made for 48 tokens .*max_model_len is 64[\s\S]*--max-model-len 48"):
        start(folder("it"), draft)
    llm = LLM(folder("other"), load_format="dummy", dtype="float32", skip_tokenizer_init=True, max_model_len=48,
              speculative_config={"method": "draft_model", "model": draft, "num_speculative_tokens": 2})  # fmt: skip
    llm.shutdown()


def test_vocabularies_of_other_sizes_are_refused_without_tokenizers(folder):
    with pytest.raises(ValueError, match=r"draft has 7 tokens and .*it has 6"):
        start(folder("it"), folder("draft", vocab_size=7))


def test_another_tokenizer_is_refused_with_tokens_that_differ(folder):
    other = {**WORDS, "x": WORDS["c"]}
    del other["c"]
    with pytest.raises(ValueError, match=r"speaks of other tokens than .*1 of 5 ids differ \(token 2 is 'c' and 'x'\)"):
        start(folder("it", WORDS), folder("draft", other))


def test_the_same_tokenizer_with_other_roles_and_padding_is_taken(folder):
    served = folder("it", WORDS, [("<user>", 5)])
    for name, size in (("narrow", 6), ("wide", 9)):
        llm = start(served, folder(name, WORDS, [("<bot>", 5)], vocab_size=size))
        outputs = llm.generate([{"prompt_token_ids": [1, 2]}], use_tqdm=False)
        assert outputs[0].metrics.num_drafts > 0
        assert all(token < 6 for token in outputs[0].outputs[0].token_ids)
        llm.shutdown()


def test_an_architecture_that_nobody_serves_is_named(folder):
    with pytest.raises(PluginError, match=r'"UnheardOfForCausalLM"[\s\S]*as the second model .*draft'):
        start(folder("it"), folder("draft", architectures=["UnheardOfForCausalLM"], model_type="unheard_of"))


def test_a_config_that_its_model_cannot_read_is_named(folder):
    with pytest.raises(ValueError, match=r"the second model 'draft' \(vllm-plugin-llama .*'hidden_size'"):
        start(folder("it"), folder("draft", hidden_size=None))


def test_its_weights_and_caches_count_in_the_memory_plan(folder):
    served, draft = folder("it", hidden_size=32), folder("draft", num_hidden_layers=3)
    alone = LLM(served, load_format="dummy", dtype="float32", skip_tokenizer_init=True, max_model_len=64)
    both = start(served, draft)
    weights = [llm.built.capacity.memory["weights"] for llm in (alone, both)]
    # Embedding, head, three layers of four matrices of attention and three of the MLP, and their norms.
    assert weights[1] - weights[0] == 4 * (2 * 6 * 16 + 3 * (4 * 16 * 16 + 3 * 16 * 16 + 2 * 16) + 16)
    names = {name for group in both.built.capacity.caches.groups for name in group.names}
    assert {name for name in names if name.startswith("draft.")} == {
        f"draft.layers.{i}.attention.attend" for i in range(3)
    }
    for llm in (alone, both):
        llm.shutdown()
