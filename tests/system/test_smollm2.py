"""The main job on real weights: SmolLM2-135M-Instruct through our engine, against transformers."""

from itertools import pairwise

import pytest

from tests.system import oracle
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
def reference(gguf_file):
    return oracle.load(str(gguf_file))


@pytest.fixture(scope="module")
def answers(llm, prompts):
    """Greedy, 64 tokens or up to the end of the text."""
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS)
    return [o.outputs[0] for o in llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)]


def test_greedy_answers_equal_transformers_token_for_token(llm, prompts, reference, answers):
    eos = set(llm.get_tokenizer().eos_token_ids)
    for text, prompt, ours in zip(PROMPTS, prompts, answers, strict=True):
        assert oracle.follows_greedily(reference, prompt, ours.token_ids) == ours.token_ids, text
        ends = [i for i, token in enumerate(ours.token_ids) if token in eos]
        assert ends == ([] if len(ours.token_ids) == TOKENS else [len(ours.token_ids) - 1]), text


@pytest.mark.parametrize("which", [1, 9])
def test_transformers_own_loop_gives_the_same_tokens(prompts, reference, answers, which):
    ours = answers[which].token_ids
    assert oracle.generate(reference, prompts[which], len(ours)) == ours


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
