"""Random mixtures of requests through a whole engine: every token is the one of a plain float64 sampler."""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_core import LLM, SamplingParams

from .plain import agrees, noise

VOCAB = 400


def request(make: random.Random, number: int) -> dict:
    def ids(low, high, most=VOCAB):
        return [make.randrange(2, most) for _ in range(make.randint(low, high))]

    def maybe(value):
        return value if make.random() < 0.35 else None

    wanted = {
        "temperature": make.choice([0, 0.6, 1.0, 1.4]),
        "top_k": maybe(make.choice([1, 5, 40])),
        "top_p": maybe(make.choice([0.3, 0.9])),
        "min_p": maybe(make.choice([0.02, 0.2])),
        "repetition_penalty": maybe(make.choice([0.7, 1.2, 1.8])),
        "presence_penalty": maybe(make.uniform(-2, 2)),
        "frequency_penalty": maybe(make.uniform(-2, 2)),
        "logit_bias": maybe({t: make.uniform(-5, 5) for t in ids(1, 8)}),
        "allowed_token_ids": maybe(ids(5, 60)),
        "min_tokens": maybe(make.randint(1, 12)),
        "stop_token_ids": maybe(ids(1, 20)),
        "logprobs": maybe(make.randint(0, 4)),
        "prompt_logprobs": maybe(make.randint(0, 3)),
    }
    fixed = {"max_tokens": make.randint(12, 30), "seed": number}
    return {k: v for k, v in wanted.items() if v is not None} | fixed


def check(model, prompt, params, output):
    """Each token, the log-probabilities and the end of one request."""
    tokens = output.outputs[0].token_ids
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0].double()
    row = params.for_row(0, stop_ids=sorted({1, *params.stop_token_ids}))
    for i, token in enumerate(tokens):
        at = logits[len(prompt) - 1 + i].tolist()
        assert agrees(token, at, prompt, tokens[:i], row), (i, params)
    stops = {1, *params.stop_token_ids}
    assert not stops & set(tokens[: max(params.min_tokens - 1, 0)])
    assert not stops & set(tokens[:-1])
    assert len(tokens) == params.max_tokens or tokens[-1] in stops
    check_logprobs(logits.log_softmax(-1), prompt, params, output)


def check_logprobs(logprobs, prompt, params, output):
    (one,) = output.outputs
    if params.logprobs is None:
        assert one.logprobs is None
        assert one.cumulative_logprob is None
    else:
        assert len(one.logprobs) == len(one.token_ids)
        total = 0.0
        for i, found in enumerate(one.logprobs):
            check_position(found, logprobs[len(prompt) - 1 + i], one.token_ids[i], params.logprobs)
            total += found[one.token_ids[i]].logprob
        assert one.cumulative_logprob == pytest.approx(total, abs=1e-3)
    if params.prompt_logprobs is None:
        assert output.prompt_logprobs is None
    else:
        assert output.num_cached_tokens == 0
        assert len(output.prompt_logprobs) == len(prompt)
        assert output.prompt_logprobs[0] is None
        for i in range(1, len(prompt)):
            check_position(output.prompt_logprobs[i], logprobs[i - 1], prompt[i], params.prompt_logprobs)


def check_position(found, exact, token, k):
    """``found`` holds the token that is there, first, and the k likeliest."""
    assert next(iter(found)) == token
    likeliest = exact.argsort(descending=True, stable=True)[:k].tolist()
    gap = np.diff(exact.sort(descending=True).values[: k + 1].numpy())
    if len(gap) == 0 or gap.max() < -1e-4:  # no ties among them
        assert set(found) == {token, *likeliest}
    for t, entry in found.items():
        assert entry.logprob == pytest.approx(float(exact[t]), abs=1e-4)
        above = exact > exact[t] + 1e-4
        assert int(above.sum()) < entry.rank <= int((exact >= exact[t] - 1e-4).sum())


def test_the_noise_of_the_plain_version_is_the_devices():
    from vllm_core.runner.noise import uniform

    seeds, positions = [0, 5, 2**63 - 1, 12345], [0, 1, 77, 4096]
    assert uniform(torch.tensor(seeds), torch.tensor(positions)).tolist() == [
        noise(s, p) for s, p in zip(seeds, positions, strict=True)
    ]


ENGINES = {
    "overlapped": {},
    "plain loop": {"async_scheduling": False},
    "chunks": {"max_num_batched_tokens": 24, "max_num_seqs": 6},
    "preempted": {"kv_cache_memory": 22 * 4096, "max_num_seqs": 8, "max_model_len": 96},
    "drafts": {"speculative_config": {"method": "lookup", "num_speculative_tokens": 3}},
    "drafts and chunks": {
        "speculative_config": {"method": "lookup", "num_speculative_tokens": 2},
        "max_num_batched_tokens": 40,
    },
}


def check_mix(model, folder, number, count=24, **settings):
    """A random mix of requests; how many preemptions it took."""
    make = random.Random(number)
    # Few different tokens, so that drafts, counts above one and shared prefixes happen.
    prompts = [[make.randrange(2, 30) for _ in range(make.randint(1, 50))] for _ in range(count)]
    prompts[1] = [*prompts[0][:40], 9]
    params = [SamplingParams(**request(make, i)) for i in range(count)]
    with LLM(folder, dtype="float32", **settings) as llm:
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    for prompt, wanted, output in zip(prompts, params, outputs, strict=True):
        check(model, prompt, wanted, output)
    return sum(output.metrics.num_preemptions for output in outputs)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_token_is_the_one_of_the_plain_sampler(folder, model, extras, engine):
    preempted = check_mix(model, folder, 7, **ENGINES[engine])
    assert (preempted > 0) == (engine == "preempted")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("engine", ENGINES)
def test_every_token_on_a_gpu_is_the_one_of_the_plain_sampler(folder, model, extras, engine):
    preempted = check_mix(model, folder, 7, device="cuda", **ENGINES[engine])
    assert (preempted > 0) == (engine == "preempted")


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, 10**6),
    budget=st.integers(16, 80),
    pages=st.integers(16, 60),
    rows=st.integers(1, 12),
    overlapped=st.booleans(),
    drafts=st.sampled_from([0, 0, 1, 4]),
    caching=st.booleans(),
)
def test_any_mix_on_any_engine(folder, model, extras, number, budget, pages, rows, overlapped, drafts, caching):
    speculative = {"speculative_config": {"method": "lookup", "num_speculative_tokens": drafts}} if drafts else {}
    check_mix(
        model,
        folder,
        number,
        count=10,
        max_num_batched_tokens=budget,
        kv_cache_memory=pages * 4096,
        max_model_len=96,
        max_num_seqs=rows,
        async_scheduling=overlapped,
        enable_prefix_caching=caching,
        **speculative,
    )


def test_a_seeded_request_gives_the_same_tokens_alone_and_in_any_batch(folder):
    make = random.Random(3)
    prompts = [[make.randrange(2, 30) for _ in range(make.randint(1, 30))] for _ in range(12)]
    params = [SamplingParams(**request(make, i)) for i in range(12)]
    asks = [{"prompt_token_ids": p} for p in prompts]
    with LLM(folder, dtype="float32") as llm:
        together = [o.outputs[0].token_ids for o in llm.generate(asks, params, use_tqdm=False)]
        alone = [llm.generate(a, p, use_tqdm=False)[0].outputs[0].token_ids for a, p in zip(asks, params, strict=True)]
    assert together == alone
