"""Grammars on a CUDA device: masks wait for the host's ids there, and steps beside them are recorded."""

from __future__ import annotations

import pytest
import torch

from tests.grammar.toy import choices
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, SamplingParams

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TEXTS = ["The answer is yes.", "The answer is no.", "ab", "Certainly not, he said."]
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}


def held(**more):
    return SamplingParams(**{"max_tokens": 60, "structured_outputs": {"choice": TEXTS}, **more})


@pytest.mark.parametrize("settings", [{}, {"enforce_eager": True}, {"speculative_config": DRAFTS}])
def test_outputs_conform_and_free_ones_beside_them_are_as_they_were(tmp_path, monkeypatch, settings):
    monkeypatch.setattr("vllm_core.engine.fit.choose_grammars", lambda *_: choices("Toy"))
    folder = str(write(tmp_path, tiny_model()))
    prompt = " ".join(TEXTS)
    free = [SamplingParams(temperature=0.9 * (i % 2), seed=i, max_tokens=30, ignore_eos=True) for i in range(3)]
    # Equal whatever runs beside them is what free requests can promise in float32, where products of a step's
    # rows may round otherwise: so compare with a run beside as many others.
    others = [SamplingParams(max_tokens=30, seed=9, ignore_eos=True)] * 4
    with LLM(folder, dtype="float32", max_num_seqs=8, max_model_len=200, device="cuda", **settings) as llm:
        alone = llm.generate([prompt] * 7, [*free, *others], use_tqdm=False)[:3]
        mixed = [*free, held(temperature=0), held(seed=1), held(seed=2, temperature=3.0), held(temperature=0, n=1)]
        outputs = llm.generate([prompt] * 7, mixed, use_tqdm=False)
    assert {o.outputs[0].text for o in outputs[3:]} <= {*TEXTS}
    assert {o.outputs[0].finish_reason for o in outputs[3:]} == {"stop"}
    assert [o.outputs[0].token_ids[:8] for o in outputs[:3]] == [o.outputs[0].token_ids[:8] for o in alone]
