"""The reference of paged attention against softmax(q k^T) v over plain, contiguous keys in float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_core.ops import paged_attention


def plain(q, k, v, length, scale, causal, window, soft_cap, sinks):
    """One sequence, one head: q [Q, D], k [L, D], v [L, E] -> [Q, E] and log-sum-exp [Q], query by query."""
    out, totals = [], []
    for i in range(len(q)):
        position = length - len(q) + i
        seen = [j for j in range(length) if (not causal or j <= position) and (window is None or position - j < window)]
        if not seen:
            out.append(torch.zeros(v.shape[1], dtype=torch.float64))
            totals.append(float("-inf"))
            continue
        scores = k[seen] @ q[i] * scale
        if soft_cap is not None:
            scores = soft_cap * torch.tanh(scores / soft_cap)
        if sinks is not None:
            scores = torch.cat((scores, sinks[None]))
        totals.append(float(scores.exp().sum().log()))
        weights = torch.softmax(scores, 0)[: len(seen)]
        out.append(weights @ v[seen])
    found = torch.stack(out) if out else torch.zeros(0, v.shape[1], dtype=torch.float64)
    return found, torch.tensor(totals, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    sequences=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=4),
    block=st.sampled_from([1, 3, 8]),
    kv_heads=st.integers(1, 2),
    groups=st.integers(1, 3),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 4, 100]),
    soft_cap=st.sampled_from([None, 2.0]),
    with_sinks=st.booleans(),
    head_axis=st.sampled_from([1, 2]),
    extra=st.integers(0, 9),
    seed=st.integers(0, 2**20),
)
def test_pages_raggedness_and_options_mean_what_the_contract_says(
    sequences, block, kv_heads, groups, causal, window, soft_cap, with_sinks, head_axis, extra, seed
):
    torch.manual_seed(seed)
    heads, k_dim, v_dim, scale = kv_heads * groups, 6, 5, 0.7
    # Whatever is not a sequence's own must not be used, so it is NaN.
    k_pages = torch.full((120, block, kv_heads, k_dim), float("nan"))
    v_pages = torch.full((120, block, kv_heads, v_dim), float("nan"))
    free = iter(torch.randperm(119) + 1)
    width = max((-(-(before + n + extra) // block) for before, n in sequences), default=0)
    table = torch.zeros(len(sequences), width, dtype=torch.int32)
    sinks = torch.randn(heads) if with_sinks else None
    queries, wanted, totals = [], [], []
    for s, (before, n) in enumerate(sequences):
        length = before + n
        k, v, q = (
            torch.randn(length, kv_heads, k_dim),
            torch.randn(length, kv_heads, v_dim),
            torch.randn(n, heads, k_dim),
        )
        for j in range(length):
            if j % block == 0:
                table[s, j // block] = next(free)
            k_pages[table[s, j // block], j % block], v_pages[table[s, j // block], j % block] = k[j], v[j]
        queries.append(q)
        per_head = [
            plain(
                q[:, h].double(), k[:, h // groups].double(), v[:, h // groups].double(), length, scale, causal, window,
                soft_cap, None if sinks is None else sinks[h].double(),
            )
            for h in range(heads)
        ]  # fmt: skip
        wanted.append(torch.stack([out for out, _ in per_head], 1))
        totals.append(torch.stack([total for _, total in per_head], 1))
    if head_axis == 1:
        k_pages, v_pages = k_pages.transpose(1, 2).contiguous(), v_pages.transpose(1, 2).contiguous()
    lengths = [before + n for before, n in sequences]
    lse = torch.full((sum(n for _, n in sequences), heads), float("nan"))
    got = paged_attention(
        torch.cat(queries) if queries else torch.zeros(0, heads, k_dim),
        k_pages,
        v_pages,
        table,
        [n for _, n in sequences],
        torch.tensor(lengths, dtype=torch.int32),
        [n + extra for n in lengths],  # upper bounds: drafts may have been rejected
        scale=scale,
        causal=causal,
        window=window,
        soft_cap=soft_cap,
        sinks=sinks,
        lse=lse,
        head_axis=head_axis,
    )
    want = torch.cat(wanted) if wanted else torch.zeros(0, heads, v_dim, dtype=torch.float64)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    want = torch.cat(totals) if totals else torch.zeros(0, heads, dtype=torch.float64)
    torch.testing.assert_close(lse.double(), want, rtol=1e-5, atol=1e-5)
