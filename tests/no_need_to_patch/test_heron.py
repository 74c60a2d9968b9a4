"""A model family with a cache of its own kind: a recurrent state beside paged attention."""

import pytest
import torch

from tests.no_need_to_patch.heron_oracle import CONFIG, Heron

RUN = """
import json, sys
from vllm_core import LLM, SamplingParams
folder = sys.argv[1]
make = lambda n, seed: [(7 * i * i + 3 * seed * i + seed) % 400 for i in range(n)]
common = {"dtype": "float32", "skip_tokenizer_init": True, "max_logprobs": -1, "block_size": 8}
plain = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)

def run(prompts, params, **settings):
    llm = LLM(folder, **common, **settings)
    found = []
    for batch in prompts:
        for o in llm.generate([{"prompt_token_ids": ids} for ids in batch], params, use_tqdm=False):
            rows = lambda lines: [[line[i].logprob for i in range(400)] for line in lines or [] if line]
            found.append({"prompt": o.prompt_token_ids, "tokens": o.outputs[0].token_ids, "error": o.error,
                "of_prompt": rows(o.prompt_logprobs), "of_output": rows(o.outputs[0].logprobs),
                "cached": o.num_cached_tokens, "preemptions": o.metrics.num_preemptions,
                "accepted": o.metrics.num_accepted_drafts})
    llm.shutdown()
    return found

every = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logprobs=-1, prompt_logprobs=-1)
after = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logprobs=-1)
long, texts = make(560, 5), [make(n, n) for n in (1, 33, 16, 7, 50)]
print(json.dumps({
    "ragged": run([texts], every),
    "chunks": run([texts], every, max_num_batched_tokens=16),
    "prefix": run([[long], [long[:540] + [3, 1, 4]], [long[:540] + [2, 7]]], after),
    "preempted": run([texts], plain, max_model_len=96, max_num_batched_tokens=16, kv_cache_memory=int(sys.argv[2])),
    "drafts": run([[make(20, 3), make(9, 4)]], SamplingParams(temperature=0, max_tokens=80, ignore_eos=True),
        speculative_config={"method": "follow", "num_speculative_tokens": 3}, max_num_batched_tokens=16),
}))
"""


@pytest.fixture(scope="module")
def ran(site, probed, heron_folder, tmp_path_factory):
    from tests.third_party.conftest import Shell

    return Shell(tmp_path_factory.mktemp("heron"), site, probed).report(RUN, heron_folder, 70_000)


@pytest.fixture(scope="module")
def oracle(heron_folder):
    return Heron(heron_folder)


def agree(oracle, ran):
    """Log-probabilities of all tokens, at every position that was told, are those of the plain transcription."""
    assert not ran["error"]
    logits = oracle([*ran["prompt"], *ran["tokens"]])
    want = logits.log_softmax(-1)
    allowed = 1e-4 * (logits.max() - logits.min())
    n = len(ran["prompt"])
    for got, first in ((ran["of_prompt"], 0), (ran["of_output"], n - 1)):
        if got:
            assert (torch.tensor(got) - want[first : first + len(got)]).abs().max() < allowed


@pytest.mark.parametrize("how", ["ragged", "chunks"])
def test_logits_of_prompts_side_by_side_are_the_references(ran, oracle, how):
    assert [len(one["of_prompt"]) for one in ran[how]] == [0, 32, 15, 6, 49]
    assert all(len(one["of_output"]) == 5 for one in ran[how])
    for one in ran[how]:
        agree(oracle, one)


def test_a_prefix_hit_goes_on_from_a_kept_state(ran, oracle):
    assert ran["prefix"][0]["cached"] == 0
    for one in ran["prefix"][1:]:
        assert one["cached"] >= 256
        agree(oracle, one)


def test_preempted_requests_give_the_references_tokens(ran, oracle):
    assert sum(one["preemptions"] for one in ran["preempted"]) > 0
    for one in ran["preempted"]:
        assert len(one["tokens"]) == 40
        expected, margin = oracle.greedy(one["prompt"], 40)
        assert margin > 1e-4
        assert one["tokens"] == expected


def test_rejected_drafts_leave_no_trace_in_the_state(ran, oracle):
    for one in ran["drafts"]:
        expected, margin = oracle.greedy(one["prompt"], 80)
        assert margin > 1e-4
        assert one["tokens"] == expected
        assert 0 < one["accepted"] < 60, "drafts must be accepted and rejected, or nothing is proven"


def test_the_state_matters(heron_folder, oracle):
    ids = [(7 * i * i) % CONFIG["vocab_size"] for i in range(40)]
    logits, others = oracle(ids), Heron(heron_folder, forgets=True)(ids)
    assert logits[-1].std() > 1
    assert (logits - others)[-1].abs().max() > 1e-2 * (logits.max() - logits.min())
