"""Noise from a seed and a position."""

import torch

from vllm_core.runner.noise import ACCEPT, SAMPLE, uniform

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def transcription(seed, position, stream):
    first = mix((seed + GOLDEN) & MASK)
    return (mix((first + (position * 4 + stream) * GOLDEN) & MASK) >> 16) / 2**48


def test_the_finaliser_is_that_of_splitmix64():
    # The generator's first outputs for seed 1234567 (the reference C code of Vigna, prng.di.unimi.it).
    assert [mix(1234567 + (i + 1) * GOLDEN & MASK) for i in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_tensor_arithmetic_equals_a_plain_transcription_for_any_64_bits():
    seeds = [0, 1, 2, -1, 2**63 - 1, -(2**63), 123456789, -987654321]
    positions = [0, 1, 2, 1000, 131072, 2**31]
    seed, position = torch.cartesian_prod(torch.tensor(seeds), torch.tensor(positions)).unbind(1)
    for stream in (SAMPLE, ACCEPT):
        expected = [transcription(s & MASK, p, stream) for s in seeds for p in positions]
        assert uniform(seed, position, stream).tolist() == expected


def test_numbers_are_below_one_and_evenly_spread():
    u = uniform(torch.arange(200).repeat_interleave(500), torch.arange(500).repeat(200))
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, 100, 0, 1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 4 * (2 * 99) ** 0.5


def test_neighbouring_seeds_positions_and_streams_are_uncorrelated():
    seed, position = torch.arange(50_000), torch.zeros(50_000, dtype=torch.int64)
    here = uniform(seed, position)
    for other in (uniform(seed + 1, position), uniform(seed, position + 1), uniform(seed, position, ACCEPT)):
        correlation = torch.corrcoef(torch.stack((here, other)))[0, 1]
        assert abs(correlation) < 4 / 50_000**0.5
