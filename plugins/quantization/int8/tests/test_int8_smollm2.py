"""SmolLM2-135M-Instruct, dequantized from its GGUF file and rounded to 8 bits, beside itself."""

from __future__ import annotations

import pytest

from vllm_core import LLM, SamplingParams

TEXT = (
    "The sea was calm that morning, and the fishermen of the small village pushed their boats into the water. None of"
    " them knew that the storm of the century was forming behind the horizon. def add(a, b): return a + b"
)
PARAMS = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, prompt_logprobs=1)


def run(name):
    """The text's own log-probabilities by position, the likeliest tokens there, and a greedy answer."""
    with LLM("SmolLM2-135M-Instruct", quantization=name, dtype="float32", max_model_len=128) as llm:
        output = llm.generate(TEXT, PARAMS, use_tqdm=False)[0]
        answer = llm.generate("The capital of France is", PARAMS, use_tqdm=False)[0].outputs[0].text
    places = list(zip(output.prompt_token_ids, output.prompt_logprobs, strict=True))[1:]
    own = [found[token].logprob for token, found in places]
    best = [max(found, key=lambda token, found=found: found[token].logprob) for _, found in places]
    return own, best, answer


@pytest.fixture(scope="module")
def dense():
    pytest.importorskip("vllm_plugin_gguf", reason="vllm-plugin-gguf is not installed")
    locate = pytest.importorskip("vllm_plugin_smollm2.locate", reason="vllm-plugin-smollm2 is not installed")
    try:
        locate.path()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    return run(None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mean", "same"),
    # Measured: differences of 0.22 and 0.08, the same likeliest token at 89 % and 96 % of positions.
    [("int8", 0.35, 0.8), ("int8_per_channel_weight_only", 0.15, 0.9)],
)
def test_a_real_model_stays_near_itself(dense, name, mean, same):
    own, best, answer = run(name)
    apart = [abs(a - b) for a, b in zip(own, dense[0], strict=True)]
    assert 0.001 < sum(apart) / len(apart) < mean
    assert sum(a == b for a, b in zip(best, dense[1], strict=True)) / len(best) >= same
    assert "Paris" in answer
    assert "Paris" in dense[2]
