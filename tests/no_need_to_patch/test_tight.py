"""A cache in a layout of its own, which takes fewer bytes: more tokens in the same memory, nearly the same logits."""

import torch

from tests.no_need_to_patch.heron_oracle import Heron

RUN = """
import json, sys
from vllm_core import LLM, SamplingParams
prompts = [{"prompt_token_ids": [(7 * i * i + n) % 400 for i in range(n)]} for n in (5, 70, 33)]
params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=-1)

def run(backend):
    llm = LLM(sys.argv[1], dtype="float32", skip_tokenizer_init=True, attention_backend=backend, max_logprobs=-1,
              max_num_batched_tokens=24, kv_cache_memory=400_000, block_size=int(sys.argv[2]), max_model_len=128)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    caches = llm.built.capacity.caches
    found = {"tokens": [o.outputs[0].token_ids for o in outputs], "pages": llm.built.capacity.num_pages,
             "bytes": caches.page_bytes, "owners": {d.hook: d.provided.owner for d in llm.built.decisions},
             "logprobs": [[[line[i].logprob for i in range(400)] for line in o.outputs[0].logprobs] for o in outputs]}
    llm.shutdown()
    return found

ids = [p["prompt_token_ids"] for p in prompts]
print(json.dumps({"prompts": ids, "usual": run("reference"), "tight": run("tight")}))
"""
BLOCK = 48  # tokens; so that a page holds a state of the other layers in either layout


def test_pages_are_planned_by_the_layout_and_logits_are_off_by_its_rounding_only(shell, heron_folder):
    ran = shell.report(RUN, heron_folder, BLOCK)
    usual, tight = ran["usual"], ran["tight"]
    assert tight["owners"]["attention_backend"] == tight["owners"]["kv_cache_layout"] == "vllm-plugin-tight 0.1.1"
    assert "kv_cache_layout" not in usual["owners"]
    assert usual["bytes"] == BLOCK * 2 * 2 * 12 * 4  # heads, keys and values, head_dim, float32
    assert tight["bytes"] == BLOCK * 2 * (2 * 12 + 2 * 4)
    assert tight["pages"] >= 2.5 * usual["pages"]
    oracle = Heron(heron_folder)
    for prompt, tokens, logprobs in zip(ran["prompts"], tight["tokens"], tight["logprobs"], strict=True):
        logits = oracle([*prompt, *tokens])[len(prompt) - 1 : -1]
        off = (torch.tensor(logprobs) - logits.log_softmax(-1)).abs().max() / (logits.max() - logits.min())
        assert 1e-5 < off < 3e-2, "without rounding, somebody else would have computed this"
