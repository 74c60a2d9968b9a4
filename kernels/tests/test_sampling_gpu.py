"""The sampler on a GPU against the core's: which tokens stay, how often each is drawn, what others change: nothing."""

from __future__ import annotations

import attrs
import pytest
import torch

from vllm_core.interfaces.sampler import SamplingTensors
from vllm_core.ops.noise import uniform
from vllm_core.ops.sampler import ReferenceSampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
VOCABS = [1, 40, 5003, 32000, 151936]
NOTHING_ASKED = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture(scope="module")
def sampler():
    from vllm_kernels.sampling import Sampler

    from vllm_core.interfaces.device import Device
    from vllm_core.interfaces.queries import SamplerQuery

    return Sampler(SamplerQuery(vocab_size=151936, device=Device("cuda", capability=(9, 0))))


def params(lines: int, seed: int = 0, **values) -> SamplingTensors:
    """Each value is one number, or a list that is repeated."""

    def column(name, dtype):
        given = values.get(name, NOTHING_ASKED.get(name, 1.0))
        given = torch.tensor(given if isinstance(given, list) else [given], dtype=dtype)
        return given.repeat(-(-lines // len(given)))[:lines].cuda()

    return SamplingTensors(
        temperature=column("temperature", torch.float32),
        top_k=column("top_k", torch.int64),
        top_p=column("top_p", torch.float32),
        min_p=column("min_p", torch.float32),
        noise=uniform(torch.full((lines,), seed), torch.arange(lines)).cuda(),
        any_greedy=True,
        any_random=True,
        largest_top_k=1000,
        any_top_p=True,
        any_min_p=True,
    )


def logits_of(lines: int, vocab: int, dtype: torch.dtype, scale: float) -> torch.Tensor:
    x = torch.randn(lines, vocab, device="cuda") * scale
    if vocab > 3:
        x[0] = float("-inf")
        x[0, vocab // 2] = 1.0
        x[1 % lines, : vocab // 2] = float("-inf")
    return x.to(dtype)


MIXED = {
    "temperature": [0.0, 0.6, 1.0, 2.0, 0.9, 1.3, 0.7],
    "top_k": [0, 0, 1, 5, 50, 1000],
    "top_p": [1.0, 1.0, 0.9, 0.5, 0.1],
    "min_p": [0.0, 0.0, 0.05, 1.0],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("scale", [0.0, 0.02, 1.0, 4.0])
def test_the_distribution_is_the_cores(sampler, dtype, vocab, scale):
    lines = 84
    logits, asked = logits_of(lines, vocab, dtype, scale), params(lines, **MIXED)
    got, want = sampler.probs(logits, asked), ReferenceSampler().probs(logits, asked)
    # Where the sum reaches top-p's share exactly at a border, rounding decides, and one more or less may stay.
    line_error = (got - want).abs().sum(-1)
    assert (line_error < 2e-4).float().mean() > 0.97
    assert got.sum(-1).sub(1).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABS)
def test_tokens_are_the_cores_but_where_rounding_moves_a_border(sampler, dtype, vocab):
    lines = 200
    logits, asked = logits_of(lines, vocab, dtype, 2.0), params(lines, seed=vocab, **MIXED)
    before = logits.clone()
    got, want = sampler(logits, asked), ReferenceSampler()(logits, asked)
    assert torch.equal(logits, before)
    assert got.dtype == torch.int64
    assert (got == want).float().mean() > 0.97
    assert (sampler.probs(logits, asked).gather(1, got[:, None]) > 0).all()


@pytest.mark.parametrize("vocab", VOCABS)
def test_greedy_lines_take_the_first_of_the_largest(sampler, vocab):
    logits = torch.randint(-3, 3, (65, vocab), device="cuda").to(torch.bfloat16)
    got = sampler(logits, params(65, temperature=0.0))
    values = logits.max(-1, keepdim=True).values
    first = torch.where(logits == values, torch.arange(vocab, device="cuda"), vocab).min(-1).values
    assert torch.equal(got, first)


@pytest.mark.parametrize("asked", [{}, {"top_k": 7}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 9, "top_p": 0.7}])
def test_draws_follow_the_probabilities(sampler, asked):
    lines, vocab = 16_000, 2500
    one = torch.randn(vocab) * 0.2
    one[torch.randperm(vocab)[:12]] = torch.randn(12) + 7
    logits = one.cuda().expand(lines, -1)
    values = params(lines, seed=11, temperature=1.0, **asked)
    tokens = sampler(logits, values)
    p = ReferenceSampler().probs(logits[:1], attrs.evolve(values, **first_line(values)))[0].double().cpu()
    counts = torch.bincount(tokens.cpu(), minlength=vocab).double()
    assert (counts[p == 0] == 0).all()
    deviation = (counts - lines * p).abs() / (lines * p * (1 - p)).clamp_min(1.0).sqrt()
    assert deviation.max() < 5.5


def first_line(values: SamplingTensors) -> dict[str, torch.Tensor]:
    return {name: getattr(values, name)[:1] for name in ("temperature", "top_k", "top_p", "min_p", "noise")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_exact_weights_give_exact_tokens(sampler, dtype):
    """Half of the vocabulary weighs 1, the others nothing: token = floor(noise * count) of those."""
    lines, vocab = 300, 6000
    logits = torch.full((lines, vocab), float("-inf"))
    logits[:, 1::2] = 2.5
    asked = params(lines, seed=5, temperature=0.7, top_k=[0, 10], top_p=[1.0, 0.25, 1.0], min_p=[0.0, 0.0, 0.0, 1.0])
    tokens = sampler(logits.to(dtype).cuda(), asked).cpu()
    assert torch.equal(tokens, 2 * (asked.noise.cpu() * (vocab // 2)).long() + 1)


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-48])
@pytest.mark.parametrize("asked", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_tokens_of_no_weight_are_never_drawn(sampler, u, asked):
    for vocab in (1, 2, 1025, 5000):
        for place in {0, vocab // 2, vocab - 1}:
            logits = torch.full((1, vocab), float("-inf"))
            logits[0, place] = -7.0
            values = attrs.evolve(params(1, **asked), noise=torch.tensor([u], dtype=torch.float64).cuda())
            assert sampler(logits.cuda(), values).item() == place


@pytest.mark.parametrize("temperature", [1e-30, 1e-42])
def test_a_tiny_temperature_is_as_good_as_zero(sampler, temperature):
    logits = torch.randn(40, 3000, device="cuda") * 100
    assert torch.equal(sampler(logits, params(40, temperature=temperature)), logits.argmax(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_lines_token_depends_on_no_other_line(sampler, dtype):
    lines = 310
    logits, asked = logits_of(lines, 50257, dtype, 1.5), params(lines, seed=3, **MIXED)
    together = sampler(logits, asked)
    for start in (0, 7, 100):
        some = slice(start, start + 30)
        names = ("temperature", "top_k", "top_p", "min_p", "noise")
        alone = attrs.evolve(asked, **{name: getattr(asked, name)[some] for name in names})
        assert torch.equal(sampler(logits[some], alone), together[some])
        assert torch.equal(sampler(logits[some], alone), together[some])  # and again


def test_one_captured_call_serves_whatever_the_lines_ask_for(sampler):
    lines, vocab = 33, 32000
    logits, asked = torch.zeros(lines, vocab, device="cuda", dtype=torch.bfloat16), params(lines)
    sampler(logits, asked)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens = sampler(logits, asked)
    for seed, values in enumerate([{"temperature": 0.0}, {}, MIXED]):
        new, x = params(lines, seed=seed, **values), logits_of(lines, vocab, torch.bfloat16, 2.0)
        logits.copy_(x)
        for name in ("temperature", "top_k", "top_p", "min_p", "noise"):
            getattr(asked, name).copy_(getattr(new, name))
        tokens.fill_(-1)
        graph.replay()
        assert torch.equal(tokens, sampler(x, new))


def test_lines_of_a_wider_matrix_need_no_copy(sampler):
    wide = torch.randn(20, 4099, device="cuda")  # lines at odd addresses
    part = wide[:, 3:4000]
    assert torch.equal(sampler(part, params(20, seed=2, **MIXED)), sampler(part.clone(), params(20, seed=2, **MIXED)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_op_argmax_gives_the_lowest_of_equals(dtype):
    from vllm_kernels.sampling import argmax

    from vllm_core.interfaces.device import Device
    from vllm_core.interfaces.queries import OpQuery

    run = argmax(
        OpQuery(
            op="argmax",
            dtype=str(dtype).removeprefix("torch."),
            device=Device("cuda", capability=(9, 0)),
            shape={"vocab": 5003},
        )
    )
    for lines in (0, 1, 3, 600):
        logits = torch.randint(-50, 50, (lines, 5003), device="cuda").to(dtype)
        assert torch.equal(run(logits).cpu(), logits.cpu().float().argmax(-1))
