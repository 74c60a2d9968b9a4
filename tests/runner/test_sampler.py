"""Drawing tokens: exact distributions, and independence of whatever shares the batch."""

import attrs
import pytest
import torch
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from vllm_core.interfaces.sampler import SamplingTensors
from vllm_core.ops.sampler import BLOCK, ReferenceSampler, draw, weights
from vllm_core.runner.noise import uniform

from .statistics import agrees


def sampling(temperature, top_k=None, top_p=None, min_p=None, noise=None):
    temperature = torch.tensor(temperature)
    top_k = torch.tensor(top_k) if top_k else torch.zeros(len(temperature), dtype=torch.int64)
    top_p = torch.tensor(top_p) if top_p else torch.ones(len(temperature))
    min_p = torch.tensor(min_p) if min_p else torch.zeros(len(temperature))
    return SamplingTensors(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        noise=noise,
        any_greedy=bool((temperature == 0).any()),
        any_random=bool((temperature > 0).any()),
        largest_top_k=int(top_k.max()),
        any_top_p=bool((top_p < 1).any()),
        any_min_p=bool((min_p > 0).any()),
    )


def sample(logits, params, noise):
    return ReferenceSampler()(logits, attrs.evolve(params, noise=noise))


def noise(count, seed=0):
    return uniform(torch.full((count,), seed), torch.arange(count))


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 1.0, 0.0),
        (1.5, 4, 1.0, 0.0),
        (1.0, 0, 0.8, 0.0),
        (1.3, 5, 0.7, 0.0),
        (1.5, 0, 1.0, 0.2),
        (1.7, 6, 0.8, 0.1),
        (0.6, 3, 0.9, 0.05),
    ],
)
def test_draws_follow_the_distribution_that_transformers_filters(temperature, top_k, top_p, min_p):
    count = 20_000
    logits = torch.randn(9, generator=torch.Generator().manual_seed(3)) * 1.5
    scores = (logits / temperature)[None]
    if min_p:
        scores = MinPLogitsWarper(min_p)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)

    params = sampling([temperature] * count, [top_k] * count, [top_p] * count, [min_p] * count)
    tokens = sample(logits.expand(count, -1), params, noise(count))

    assert agrees(tokens, scores.softmax(-1)[0])


def test_a_token_is_where_the_running_sum_passes_the_noise():
    size = 3 * BLOCK + 5
    weight = torch.rand(200, size, generator=torch.Generator().manual_seed(0))
    weight[:, ::3] = 0
    u = noise(200)
    ends = weight.double().cumsum(1)
    expected = torch.searchsorted(ends, u[:, None] * ends[:, -1:], right=True)[:, 0]
    drawn = draw(weight, u)
    # Sums of blocks round differently: a neighbour may be drawn where the noise falls on a border.
    assert (drawn == expected).float().mean() > 0.99
    assert (weight.gather(1, drawn[:, None]) > 0).all()


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2.0**-48])
@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_tokens_of_no_weight_are_never_drawn(u, size):
    for place in {0, size // 2, size - 1}:
        weight = torch.zeros(1, size)
        weight[0, place] = 1e-20
        assert draw(weight, torch.tensor([u], dtype=torch.float64)).tolist() == [place]


def test_temperature_zero_takes_the_largest_logit_beside_random_rows():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    mixed = sample(logits, sampling([0.0, 1.0, 0.0, 0.5, 0.0, 2.0]), noise(6))
    assert mixed[::2].tolist() == logits.argmax(1)[::2].tolist()
    assert mixed[1::2].tolist() == sample(logits[1::2], sampling([1.0, 0.5, 2.0]), noise(6)[1::2]).tolist()


def test_a_tiny_temperature_is_as_good_as_zero():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 100
    assert sample(logits, sampling([1e-30] * 4), noise(4)).tolist() == logits.argmax(1).tolist()


def test_masked_logits_are_never_drawn():
    logits = torch.full((500, 40), float("-inf"))
    logits[:, 7], logits[:, 33] = 1.0, 2.0
    assert set(sample(logits, sampling([1.0] * 500), noise(500)).tolist()) == {7, 33}


def test_a_rows_token_depends_on_no_other_row():
    make = torch.Generator().manual_seed(5)
    logits = torch.randn(30, 300, generator=make) * torch.rand(30, 1, generator=make) * 5
    temperature = [(0.0, 0.8, 1.7)[i % 3] for i in range(30)]
    top_k = [(0, 5, 100, 1)[i % 4] for i in range(30)]
    top_p = [(1.0, 0.95, 0.2, 0.999, 1.0)[i % 5] for i in range(30)]
    min_p = [(0.0, 0.3, 0.01)[i % 3] for i in range(30)]
    u = noise(30)
    together = sample(logits, sampling(temperature, top_k, top_p, min_p), u)
    alone = [
        sample(logits[i : i + 1], sampling([temperature[i]], [top_k[i]], [top_p[i]], [min_p[i]]), u[i : i + 1]).item()
        for i in range(30)
    ]
    assert together.tolist() == alone


def test_top_p_counts_shares_of_what_top_k_kept():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    # Of all four, 0.65 needs two tokens; of the first two, whose shares are 4/7 and 3/7, also two; 0.55 needs one.
    assert (weights(logits, sampling([1.0], [2], [0.65])) > 0).sum() == 2
    assert (weights(logits, sampling([1.0], [2], [0.55])) > 0).sum() == 1
    assert (weights(logits, sampling([1.0], [0], [0.55])) > 0).sum() == 2


def test_bfloat16_logits_are_sampled_in_float32():
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert weights(logits, sampling([0.7])).dtype == torch.float32
    assert torch.equal(weights(logits, sampling([0.7])), weights(logits.float(), sampling([0.7])))
