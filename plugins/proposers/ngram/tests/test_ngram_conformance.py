"""Prompt lookup under the proposers' conformance kit, on a tiny Llama whose texts run in circles."""

from __future__ import annotations

from vllm_core.testing import ProposerConformance
from vllm_core.testing.lossless import asked


class TestPromptLookup(ProposerConformance):
    method = "ngram"
    architecture = "LlamaForCausalLM"
    config = {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    # The next token depends on the last one most of all.
    gains = {"*.o_proj.weight": 0.01, "*.down_proj.weight": 0.01}
    least_accepted = 0.2

    @classmethod
    def keys(cls, folder, vocab_size):
        return {"prompt_lookup_max": 3, "prompt_lookup_min": 1}

    def test_a_text_that_repeats_itself_takes_far_fewer_steps(self, speculating):
        asks = asked(speculating, temperature=0.0)[:1]
        ran, plain = speculating.ran(4, asks), speculating.plain(asks)
        assert ran.tokens == plain.tokens
        assert ran.steps < 0.7 * plain.steps
        assert ran.accepted > 0.5 * len(ran.tokens[0])
