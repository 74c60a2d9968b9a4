"""A sampler of one's own, and a change of logits that must hold where several tokens come in a step."""

from itertools import pairwise

import pytest

from tests.no_need_to_patch.heron_oracle import Heron

RUN = """
import json, sys
from vllm_core import LLM, SamplingParams
prompts = [{"prompt_token_ids": [(7 * i * i + n) % 400 for i in range(n)]} for n in (5, 30, 17)]
COUNT = 40

def run(drafts=0, **settings):
    drafted = {"speculative_config": {"method": "follow", "num_speculative_tokens": drafts}} if drafts else {}
    common = {"dtype": "float32", "skip_tokenizer_init": True, "logits_processors": ["no-pairs"]}
    llm = LLM(sys.argv[1], **common, **drafted, **settings)
    found = {}
    for name, temperature, extra in (("greedy", 0, {}), ("no-pairs", 0, {"no_pairs": True}), ("drawn", 1.0, {})):
        params = [SamplingParams(temperature=temperature, max_tokens=COUNT, ignore_eos=True, seed=i, extra_args=extra)
                  for i in range(len(prompts))]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        assert not any(o.error for o in outputs), outputs[0].error
        found[name] = {"tokens": [o.outputs[0].token_ids for o in outputs],
                       "accepted": sum(o.metrics.num_accepted_drafts for o in outputs)}
    llm.shutdown()
    return found

narrow = {"plugin": {"sigma": {"n": float(sys.argv[2])}}, "prefer": {"sampler": ["sigma"]}}
print(json.dumps({"prompts": [p["prompt_token_ids"] for p in prompts], "usual": run(), "narrow": run(**narrow),
                  "drafts": run(3, **narrow)}))
"""
N = 0.6  # standard deviations


@pytest.fixture(scope="module")
def ran(site, probed, heron_folder, tmp_path_factory):
    from tests.third_party.conftest import Shell

    return Shell(tmp_path_factory.mktemp("sampling"), site, probed).report(RUN, heron_folder, N)


def outside(oracle, prompt, tokens):
    """How many of the tokens lie further below the best one than the sampler allows, and of how many it left one."""
    logits = oracle([*prompt, *tokens])[len(prompt) - 1 : -1].double()
    floor = logits.amax(-1) - N * logits.std(-1, correction=0)
    of_tokens = logits.gather(1, logits.new_tensor(tokens).long()[:, None])[:, 0]
    choices = (logits >= floor[:, None]).sum(-1)
    return int((of_tokens < floor - 1e-4).sum()), float((choices > 1).double().mean())


@pytest.mark.parametrize("engine", ["narrow", "drafts"])
def test_every_drawn_token_is_one_that_the_sampler_allows(ran, heron_folder, engine):
    oracle = Heron(heron_folder)
    for prompt, tokens, usual in zip(
        ran["prompts"], ran[engine]["drawn"]["tokens"], ran["usual"]["drawn"]["tokens"], strict=True
    ):
        wrong, open_choice = outside(oracle, prompt, tokens)
        assert wrong == 0
        assert open_choice > 0.2, "if one token were always left, anybody would draw it"
        assert outside(oracle, prompt, usual)[0] > 5, "the usual draw must go beyond, or nothing is proven"


def test_greedy_tokens_are_the_same_with_drafts_and_some_are_accepted(ran):
    assert ran["drafts"]["greedy"]["tokens"] == ran["narrow"]["greedy"]["tokens"] == ran["usual"]["greedy"]["tokens"]
    assert ran["drafts"]["greedy"]["accepted"] > 0
    assert ran["drafts"]["drawn"]["accepted"] > 0


def test_no_pair_comes_twice_however_many_tokens_a_step_gives(ran):
    free, banned = ran["usual"]["greedy"]["tokens"], ran["usual"]["no-pairs"]["tokens"]
    assert any(len(set(pairwise(ids))) < len(ids) - 1 for ids in free), "nothing would be proven"
    assert all(len(set(pairwise(ids))) == len(ids) - 1 for ids in banned)
    assert ran["drafts"]["no-pairs"]["tokens"] == banned
