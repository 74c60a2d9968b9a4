"""The main job on real weights: SmolLM2-135M-Instruct through our engine, against transformers."""

from itertools import pairwise

import pytest
import torch

from vllm_core import LLM, SamplingParams

PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "List three uses of a paper clip.",
    "Explain why the sky is blue to a child of six.",
    "Translate 'good morning' into Spanish, German and Italian.",
    "def fibonacci(n):",
    "Count from 1 to 20.",
    "Who wrote Hamlet, and when?",
    "The three largest oceans, by area, are",
    "Naïve café: 1234 + 5678 = ?",
]
TOKENS = 64


@pytest.fixture(scope="module")
def gguf_file():
    locate = pytest.importorskip("vllm_plugin_smollm2.locate", reason="vllm-plugin-smollm2 is not installed")
    try:
        return locate.path()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def llm():
    engine = LLM("SmolLM2-135M-Instruct", dtype="float32", max_model_len=1024, max_num_batched_tokens=64)
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def prompts(llm):
    tokenizer = llm.get_tokenizer()
    chats = [llm.render_chat([{"role": "user", "content": p}]) for p in PROMPTS[:5]]
    return [tokenizer.encode(text, add_special_tokens=False) for text in [*chats, *PROMPTS[5:]]]


@pytest.fixture(scope="module")
def expected(gguf_file, prompts):
    """transformers' own GGUF loader and its own greedy loop, float32."""
    from pathlib import Path

    from transformers import AutoModelForCausalLM

    path = Path(gguf_file)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    outputs = []
    for ids in prompts:
        with torch.inference_mode():
            x = torch.tensor([ids])
            y = model.generate(
                x, attention_mask=torch.ones_like(x), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0
            )
        outputs.append(y[0, len(ids) :].tolist())
    return outputs


def test_greedy_answers_equal_transformers_token_for_token(llm, prompts, expected):
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS)
    got = [o.outputs[0] for o in llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)]
    eos = set(llm.get_tokenizer().eos_token_ids)
    for prompt, ours, theirs in zip(PROMPTS, got, expected, strict=True):
        theirs = theirs[: next((i for i, t in enumerate(theirs) if t in eos), len(theirs))]
        mine = [t for t in ours.token_ids if t not in eos]
        assert mine == theirs, prompt


def test_the_capital_of_france_is_paris(llm):
    (answer,) = llm.chat(
        [{"role": "user", "content": "What is the capital of France?"}],
        SamplingParams(temperature=0.0, max_tokens=32),
        use_tqdm=False,
    )
    assert "Paris" in answer.outputs[0].text
    assert answer.outputs[0].finish_reason == "stop"


def test_a_second_asking_hits_the_prefix_cache_and_answers_the_same(llm, prompts):
    params = SamplingParams(temperature=0.0, max_tokens=16)
    long = {"prompt_token_ids": prompts[3] * 4}
    first, second = (llm.generate(long, params, use_tqdm=False)[0] for _ in range(2))
    assert second.num_cached_tokens > 0
    assert second.outputs[0].token_ids == first.outputs[0].token_ids


def test_streamed_pieces_join_to_the_whole_answer(llm):
    params = SamplingParams(temperature=0.0, max_tokens=24)
    seen = [o.outputs[0].text for o in llm.stream(PROMPTS[9], params)]
    assert len(seen) > 3
    assert all(b.startswith(a) for a, b in pairwise(seen))
    assert seen[-1] == llm.generate(PROMPTS[9], params, use_tqdm=False)[0].outputs[0].text


def test_64_mixed_requests_at_once_each_answer_as_alone(llm, prompts):
    requests = [{"prompt_token_ids": prompts[i % 10][: 5 + i]} for i in range(64)]
    params = [
        SamplingParams(temperature=0.0 if i % 2 else 0.8, top_p=0.9, top_k=40, seed=i, max_tokens=1 + i % 12)
        for i in range(64)
    ]
    together = llm.generate(requests, params, use_tqdm=False)
    assert [len(o.outputs[0].token_ids) <= p.max_tokens for o, p in zip(together, params, strict=True)] == [True] * 64
    for i in range(0, 64, 7):
        (alone,) = llm.generate(requests[i], params[i], use_tqdm=False)
        assert alone.outputs[0].token_ids == together[i].outputs[0].token_ids, i
