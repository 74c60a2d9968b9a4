"""SmolLM2-135M-Instruct guesses for itself: nearly all is accepted, and no token changes."""

from __future__ import annotations

import pytest

from vllm_core import LLM, SamplingParams

PROMPTS = ["The three largest oceans, by area, are", "def fibonacci(n):", "Count from 1 to 20."]
MODEL = "SmolLM2-135M-Instruct"
TOKENS = 48


@pytest.mark.slow
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.95, "seed": 1}], ids=str)
def test_the_model_itself_guesses_right(params):
    locate = pytest.importorskip("vllm_plugin_smollm2.locate", reason="vllm-plugin-smollm2 is not installed")
    try:
        locate.path()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    texts, metrics = [], []
    for speculative in ({}, {"method": "draft_model", "model": MODEL, "num_speculative_tokens": 4}):
        more = {"speculative_config": speculative} if speculative else {}
        llm = LLM(MODEL, dtype="float32", max_model_len=256, max_num_batched_tokens=32, **more)
        outputs = llm.generate(PROMPTS, SamplingParams(max_tokens=TOKENS, ignore_eos=True, **params), use_tqdm=False)
        llm.shutdown()
        texts.append([output.outputs[0].token_ids for output in outputs])
        metrics = [output.metrics for output in outputs]
    assert texts[0] == texts[1]
    accepted, guesses = sum(m.num_accepted_drafts for m in metrics), sum(m.num_drafts for m in metrics)
    assert accepted >= 0.95 * guesses > 0
