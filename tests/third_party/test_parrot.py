"""A stranger's draft proposer: the tokens are those of plain decoding, in fewer steps."""

import json

import pytest

from tests.third_party.owl_oracle import save_owl

RUN = """
import json, sys
from vllm_core import LLM, SamplingParams
folder, speculative = sys.argv[1], json.loads(sys.argv[2])
prompts = [{"prompt_token_ids": [start, 7, 9]} for start in (3, 150, 301)]
greedy = SamplingParams(temperature=0, max_tokens=120, ignore_eos=True)
sampled = [SamplingParams(temperature=0.7, top_p=0.9, seed=s, max_tokens=60, ignore_eos=True) for s in (1, 2, 3)]

def run(**settings):
    llm = LLM(folder, skip_tokenizer_init=True, block_size=4, **settings)
    plans, launch = [], llm.built.executor.launch
    llm.built.executor.launch = lambda plan: (plans.append(plan), launch(plan))[1]
    tokens, steps = [], []
    for prompt in prompts:
        before = len(plans)
        tokens += [o.outputs[0].token_ids for o in llm.generate(prompt, greedy, use_tqdm=False)]
        steps.append(len(plans) - before)
    tokens += [o.outputs[0].token_ids for o in llm.generate(prompts, sampled, use_tqdm=False)]
    owners = [d.provided.owner for d in llm.built.decisions if d.hook == "draft_proposer"]
    llm.shutdown()
    return {"tokens": tokens, "steps": steps, "owners": owners}

print(json.dumps({"plain": run(), "drafted": run(speculative_config=speculative)}))
"""


@pytest.fixture(scope="module")
def repetitive_owl(tmp_path_factory):
    return save_owl(tmp_path_factory.mktemp("repetitive-owl"), layers=0.02)


def test_tokens_greedy_and_sampled_equal_those_without_it_and_several_a_step_are_accepted(shell, repetitive_owl):
    config = {"method": "parrot", "num_speculative_tokens": 3, "words": 1}
    got = shell.report(RUN, repetitive_owl, json.dumps(config))
    plain, drafted = got["plain"], got["drafted"]
    assert drafted["tokens"] == plain["tokens"]
    assert (plain["owners"], drafted["owners"]) == ([], ["vllm-plugin-parrot 0.2.0"])
    assert len(set(map(tuple, plain["tokens"]))) == len(plain["tokens"])
    assert min(plain["steps"]) >= 120
    assert max(drafted["steps"]) < 120 * 0.7  # once a text repeats itself, 4 tokens a step


COMPLETE = ("--temperature", "0", "--max-tokens", "12", "--speculative-config")


def test_the_command_line_takes_it(shell, owl_folder):
    wanted = '{"method": "parrot", "num_speculative_tokens": 2}'
    plain = shell("complete", owl_folder, "again and again and again and", "-q", *COMPLETE[:-1])
    drafted = shell("complete", owl_folder, "again and again and again and", "-q", *COMPLETE, wanted)
    assert (drafted.code, drafted.out) == (0, plain.out), drafted.err


def test_a_wrong_configuration_is_refused_by_name(shell, owl_folder):
    config = {"method": "parrot", "num_speculative_tokens": 2, "wrds": 1}
    done = shell("explain", owl_folder, "--speculative-config", json.dumps(config))
    assert (done.code, done.out) == (1, "")
    assert 'draft proposer "parrot" was asked for (speculative_config) and cannot be used.' in done.err
    assert 'one key, "words", and was given wrds' in done.err
