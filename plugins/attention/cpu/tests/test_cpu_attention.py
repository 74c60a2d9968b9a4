"""The backend "cpu" gives what the core's reference gives, on every ragged mix of sequences."""

from __future__ import annotations

import random
import subprocess
import sys

import attrs
import pytest
import torch
import vllm_plugin_cpu_attention as plugin
from vllm_plugin_cpu_attention import scores
from vllm_plugin_cpu_attention.backend import CpuAttention

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.interfaces.cache import FullAttentionCache
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.layers.page_layouts import HeadLayout
from vllm_core.ops import paged_attention
from vllm_core.plugin import Offer, Refusal

NUM_PAGES = 80


def make(heads=6, kv_heads=2, dim=64, block=16, dtype=torch.float32, padding=0, **options):
    """A backend and its pages, full of NaN."""
    config = AttentionConfig(
        num_heads=heads,
        num_kv_heads=kv_heads,
        k_dim=dim,
        v_dim=dim,
        scale=dim**-0.5 * 3,
        dtype=dtype,
        kv_dtype=dtype,
        device=torch.device("cpu"),
        block_size=block,
        page_layout="NHD",
        **options,
    )
    spec = FullAttentionCache(num_kv_heads=kv_heads, k_dim=dim, v_dim=dim, dtype=str(dtype).removeprefix("torch."))
    views = HeadLayout("NHD")
    raw = torch.full((NUM_PAGES, views.page_bytes(spec, block) + padding), 255, dtype=torch.uint8)
    return CpuAttention(config), views.views(raw, spec, block)


def make_step(sequences, block, scattered=True, seed=0, window=None):
    """``sequences`` are (cached tokens before the step, query tokens)."""
    rng = random.Random(seed)
    free = list(range(1, NUM_PAGES))
    if scattered:
        rng.shuffle(free)
    tables, slots = [], []
    for before, queries in sequences:
        pages = [free.pop(0) for _ in range(-(-(before + queries) // block))]
        slots += [pages[p // block] * block + p % block for p in range(before, before + queries)]
        tables.append(pages)
    width = max(map(len, tables), default=0)
    lens = [queries for _, queries in sequences]
    kv = [before + queries for before, queries in sequences]
    step = AttentionStep(
        num_tokens=sum(lens),
        query_lens=lens,
        kv_bounds=[n + 3 for n in kv],  # bounds are larger than lengths where drafts were rejected
        query_starts=torch.tensor([0, *lens], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        kv_lens=torch.tensor(kv, dtype=torch.int32),
        block_table=torch.tensor([t + [0] * (width - len(t)) for t in tables], dtype=torch.int32).view(
            len(tables), width
        ),
        slots=torch.tensor(slots, dtype=torch.int64),
    )
    if window is not None:  # what a cache manager frees
        for i, (before, _) in enumerate(sequences):
            step.block_table[i, : max(0, before - window + 1) // block] = 0
    return step


def compare(backend, pages, step, seed=0):
    """Fill what is cached, run write and attend, and compare with the reference in float64."""
    c = backend.config
    torch.manual_seed(seed)
    for s, length in enumerate(step.kv_lens.tolist()):
        for p in range(length - step.query_lens[s]):
            page = int(step.block_table[s, p // c.block_size])
            if page:
                for part in pages:
                    part[page, p % c.block_size] = torch.randn(c.num_kv_heads, c.k_dim).to(c.dtype)
    # Heads of q, k and v at the strides of one fused projection.
    qkv = torch.randn(step.num_tokens, c.num_heads + 2 * c.num_kv_heads, c.k_dim).to(c.dtype)
    q, k, v = qkv.split((c.num_heads, c.num_kv_heads, c.num_kv_heads), dim=1)
    backend.write(k, v, pages, step)
    got = backend.attend(q, pages, step, backend.begin_step(step))
    want = paged_attention(
        q.double(),
        pages[0].double(),
        pages[1].double(),
        step.block_table,
        step.query_lens,
        step.kv_lens,
        step.kv_bounds,
        scale=c.scale,
        causal=c.causal,
        window=c.window,
        soft_cap=c.soft_cap,
    )
    assert got.shape == want.shape
    assert got.dtype == c.dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[c.dtype]
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance)


MIXES = {
    "one decode": [(37, 1)],
    "decodes of like lengths": [(37, 1), (40, 1), (33, 1)],
    "decodes of all lengths": [(0, 1), (1, 1), (200, 1), (15, 1), (16, 1), (17, 1), (90, 1)],
    "one prompt": [(0, 50)],
    "a chunk": [(48, 30)],
    "prefix hit of whole pages": [(32, 9)],
    "drafts": [(20, 4), (31, 4), (7, 3), (64, 1)],
    "all at once": [(5, 1), (0, 33), (60, 5), (48, 1), (16, 20), (2, 5), (0, 1), (0, 2)],
}


@pytest.mark.parametrize("scattered", [True, False])
@pytest.mark.parametrize("mix", MIXES)
def test_every_mix_of_sequences_agrees_with_the_reference(mix, scattered):
    backend, pages = make()
    compare(backend, pages, make_step(MIXES[mix], 16, scattered))


@pytest.mark.parametrize("block", [8, 16, 48, 64])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 64), (9, 3, 96), (8, 1, 128), (4, 2, 32)])
def test_block_sizes_and_head_ratios_agree(block, heads, kv_heads, dim):
    backend, pages = make(heads, kv_heads, dim, block)
    compare(backend, pages, make_step(MIXES["all at once"], block))


@pytest.mark.parametrize("window", [1, 7, 16, 40])
@pytest.mark.parametrize("scattered", [True, False])
@pytest.mark.parametrize("mix", MIXES)
def test_windows_agree_and_freed_blocks_are_not_read(mix, window, scattered):
    backend, pages = make(window=window)
    compare(backend, pages, make_step(MIXES[mix], 16, scattered, window=window))


@pytest.mark.parametrize("mix", MIXES)
def test_bidirectional_attention_agrees(mix):
    backend, pages = make(causal=False)
    compare(backend, pages, make_step(MIXES[mix], 16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mix", MIXES)
def test_half_precision_agrees(mix, dtype):
    backend, pages = make(dtype=dtype)
    compare(backend, pages, make_step(MIXES[mix], 16))


@pytest.mark.parametrize("scattered", [True, False])
def test_pages_that_end_in_padding_agree(scattered):
    backend, pages = make(padding=64)
    compare(backend, pages, make_step(MIXES["all at once"], 16, scattered))
    compare(backend, pages, make_step(MIXES["one prompt"], 16, scattered))


@pytest.mark.parametrize("mix", ["one prompt", "a chunk", "drafts", "all at once"])
@pytest.mark.parametrize("window", [None, 7])
def test_capped_scores_made_a_few_queries_at_a_time_agree(monkeypatch, mix, window):
    monkeypatch.setattr(scores, "SCORES_BYTES", 6000)
    backend, pages = make(soft_cap=2.0, window=window)
    compare(backend, pages, make_step(MIXES[mix], 16, window=window))


@pytest.mark.parametrize("seed", range(12))
def test_random_batches_agree(seed):
    rng = random.Random(seed)
    mix = [(rng.choice([0, 3, 16, 47, 100]), rng.choice([1, 1, 1, 2, 5, 8, 9, 24])) for _ in range(rng.randint(1, 7))]
    backend, pages = make(block=rng.choice([16, 32]), window=rng.choice([None, 20]))
    for again in range(2):  # buffers of the first step must not show in the second
        compare(backend, pages, make_step(mix[again:] or mix, backend.config.block_size, seed=seed + again), seed)


def test_a_step_without_tokens_gives_nothing():
    backend, pages = make()
    step = make_step([], 16)
    assert backend.attend(torch.empty(0, 6, 64), pages, step, backend.begin_step(step)).shape == (0, 6, 64)


def test_thirty_two_decodes_of_like_lengths_are_one_piece_of_work():
    backend, _ = make(block=64)
    assert len(backend.begin_step(make_step([(30 + i, 1) for i in range(32)], 64))) == 1


def test_lengths_far_apart_are_not_padded_to_the_longest():
    backend, _ = make(block=64)
    work = backend.begin_step(make_step([(2000, 1)] + [(60, 1)] * 31, 64))
    assert sorted(w.sequences for w in work) == [1, 31]


QUERY = AttentionQuery(
    kind="full",
    num_heads=4,
    num_kv_heads=2,
    k_dim=64,
    v_dim=64,
    window=None,
    causal=True,
    soft_cap=None,
    sinks=False,
    dtype="bfloat16",
    kv_dtype="bfloat16",
    device=Device("cpu"),
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kv_dtype": "float8_e4m3fn"}, "float8_e4m3fn beside bfloat16"),
        ({"dtype": "float64", "kv_dtype": "float64"}, "float64"),
        ({"kind": "cross"}, "cross"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_with_the_reason(change, reason):
    answer = plugin.attention_backend(attrs.evolve(QUERY, **change))
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_plain_attention_takes_the_public_function(monkeypatch):
    """The way that also gives log-sum-exp costs more torch calls: plain layers must not go it."""
    monkeypatch.setattr(CpuAttention, "_attend_with_lse", None)
    backend, pages = make()
    compare(backend, pages, make_step(MIXES["all at once"], 16))


def test_it_offers_on_cpus_only():
    assert isinstance(plugin.attention_backend(QUERY), Offer)
    assert plugin.attention_backend(attrs.evolve(QUERY, device=Device("cuda"))) is None


def test_importing_the_plugin_imports_no_torch():
    code = "import sys, vllm_plugin_cpu_attention; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
