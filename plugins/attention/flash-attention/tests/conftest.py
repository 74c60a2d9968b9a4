"""The libraries' functions as their documentation describes them, so that what surrounds them is tested on a CPU."""

from types import SimpleNamespace

import pytest
import torch

from vllm_core.layers.page_layouts import HeadLayout


def varlen(q, keys, values, *, scale, causal, left, sinks=None):
    """One sequence: [Q, H, k_dim], [L, KV, dim] -> [Q, H, v_dim], [H, Q]. What is masked is multiplied with 0."""
    count, length, group = len(q), len(keys), q.shape[1] // keys.shape[1]
    keys, values = (x.float().repeat_interleave(group, 1) for x in (keys, values))
    at = torch.arange(count)[:, None] + length - count
    key = torch.arange(length)
    seen = torch.ones(count, length, dtype=torch.bool)
    if causal:
        seen &= key <= at
    if left is not None:
        seen &= key >= at - left
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys) * scale
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.float()[:, None, None].expand(-1, count, 1)), -1)
    total = scores.logsumexp(-1)
    weights = (scores - total.nan_to_num(neginf=0.0)[..., None]).exp()[..., :length]
    return torch.einsum("hqk,khd->qhd", weights, values).to(q.dtype), total


@pytest.fixture
def cute(monkeypatch):
    """flash-attn-4's function over pages, and 132 multiprocessors."""
    calls = []

    def run(q, k, v, *, cu_seqlens_q, seqused_k, page_table, softmax_scale, causal, window_size, learnable_sink,
            score_mod, return_lse):  # fmt: skip
        assert score_mod is None
        assert return_lse
        assert page_table.is_contiguous()
        out, lse = q.new_zeros(len(q), q.shape[1], v.shape[-1]), torch.full((q.shape[1], len(q)), -torch.inf)
        calls.append(len(page_table))
        for row, length in enumerate(seqused_k.tolist()):
            start, stop = cu_seqlens_q[row].item(), cu_seqlens_q[row + 1].item()
            if length and stop > start:
                keys, values = (x[page_table[row].long()].flatten(0, 1)[:length] for x in (k, v))
                out[start:stop], lse[:, start:stop] = varlen(
                    q[start:stop], keys, values, scale=softmax_scale, causal=causal, left=window_size[0],
                    sinks=learnable_sink,
                )  # fmt: skip
        return out, lse

    import vllm_plugin_flash_attention.paged as paged

    monkeypatch.setattr(paged, "_library", lambda soft_cap: (run, None))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132))
    return calls


@pytest.fixture
def aten(monkeypatch):
    """torch's kernel over keys and values that follow each other."""
    calls = []

    def forward(q, k, v, starts, kv_starts, longest, longest_kv, dropout, causal, debug, *, scale, window_size_left,
                window_size_right, seqused_k):  # fmt: skip
        counts = starts.diff().tolist()
        assert min(counts) > 0, "decoding, the kernel wants one query a sequence"
        assert longest == max(counts)
        assert longest_kv >= seqused_k.max()
        calls.append(len(seqused_k))
        parts = [
            varlen(
                q[starts[row] : starts[row + 1]], *(x[kv_starts[row] : kv_starts[row] + length] for x in (k, v)),
                scale=scale, causal=causal, left=window_size_left,
            )
            for row, length in enumerate(seqused_k.tolist())
        ]  # fmt: skip
        return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts], 1)

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", forward)
    return calls


@pytest.fixture
def asked():
    """``testing``'s ``AskedBackend`` for an offer on this CPU."""

    def make(offer):
        return SimpleNamespace(
            torch_device=torch.device("cpu"), offer=lambda query: offer, views=lambda layout, query: HeadLayout(layout)
        )

    return make
