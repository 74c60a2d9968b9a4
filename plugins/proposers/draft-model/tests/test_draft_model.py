"""A draft model under the proposers' conformance kit: the served model itself, and a stranger."""

from __future__ import annotations

from vllm_core.testing import ProposerConformance
from vllm_core.testing.lossless import asked
from vllm_core.testing.speculating import Speculating

TINY = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


class TestItself(ProposerConformance):
    """The served model guesses for itself: what is not accepted is a fault of the draft's cache."""

    method = "draft_model"
    architecture = "LlamaForCausalLM"
    config = TINY
    least_accepted = 0.95

    @classmethod
    def keys(cls, folder, vocab_size):
        return {"model": str(folder)}

    def test_samples_of_one_prompt_share_what_was_computed_of_it(self, speculating, drafts):
        asks = asked(speculating, temperature=1.0, n=4)[:1]
        ran = speculating.ran(drafts, asks)
        self.check_accepted(ran, "of samples")
        assert len(set(map(tuple, ran.tokens))) == 4


class TestWindows(TestItself):
    """A cache that gives up pages which its windows have passed."""

    architecture = "MistralForCausalLM"
    config = {**TINY, "sliding_window": 9}
    drafts = (4,)


class TestStranger(ProposerConformance):
    """A model of another shape and other weights, with windows: nearly all of its guesses are wrong."""

    method = "draft_model"
    architecture = "LlamaForCausalLM"
    config = TINY
    drafts = (4,)

    @classmethod
    def keys(cls, folder, vocab_size):
        shape = {"num_hidden_layers": 1, "num_key_value_heads": 4, "sliding_window": 9}
        cls.save(folder / "draft", 1, "MistralForCausalLM", vocab_size=vocab_size, **shape)
        return {"model": str(folder / "draft")}


class TestDrawingStranger(TestStranger):
    """Drafts with the probabilities that they were drawn from: rejection sampling, which keeps the distribution."""

    drafts = (3,)
    certain = False

    @classmethod
    def keys(cls, folder, vocab_size):
        return {**super().keys(folder, vocab_size), "draft_sample_method": "probabilistic"}

    def test_itself_drawing_is_hardly_ever_rejected(self, speculating):
        asks = asked(speculating, temperature=1.0)
        keys = {"model": str(speculating.folder), "draft_sample_method": "probabilistic"}
        ran = with_keys(speculating, keys).ran(3, asks)
        assert ran.accepted >= 0.95 * ran.guesses > 0
        assert ran.tokens != speculating.plain(asks).tokens  # noise of its own: other tokens, the same distribution

    def test_the_likeliest_tokens_as_guesses_change_no_token(self, speculating):
        asks = [*asked(speculating, temperature=0.0), *asked(speculating, temperature=0.9)]
        plain = speculating.plain(asks)
        for folder in (speculating.folder, speculating.folder / "draft"):
            ran = with_keys(speculating, {"model": str(folder), "draft_sample_method": "greedy"}).ran(3, asks)
            assert ran.tokens == plain.tokens
            assert 0 < ran.accepted < ran.guesses


def with_keys(speculating, keys):
    """The same served model with another draft model, or another way of choosing guesses."""
    return Speculating(speculating.folder, "draft_model", keys, "auto", speculating.vocab_size)
