"""A stand-in for FlashInfer that does what its "fa2" kernel was read to do, so that the planner is tested on a CPU."""

import math
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
import torch

from vllm_core.layers.page_layouts import HeadLayout


class Wrapper:
    """``BatchPrefillWithPagedKVCacheWrapper``: a plan on the host, and a kernel that reads lengths on the device."""

    def __init__(self, workspace, layout, backend):
        assert backend == "fa2"
        self.layout = layout
        self._pin_memory_int_workspace_buffer = torch.empty(16, dtype=torch.uint8)
        self._paged_kv_indptr_buf = self._paged_kv_last_page_len_buf = None

    def plan(self, starts, pages, indices, last, heads, kv_heads, dim, block, *, causal, sm_scale, window_left,
             logits_soft_cap, q_data_type, kv_data_type):  # fmt: skip
        for host in (starts, pages, last):
            assert host.device.type == "cpu"
            assert host.dtype == torch.int32
        self.starts, self.indices, self.block, self.heads = starts.tolist(), indices, block, heads
        self.causal, self.scale, self.left, self.cap = causal, sm_scale, window_left, logits_soft_cap
        self.planned = (pages.diff() * block).tolist()
        self._paged_kv_indptr_buf, self._paged_kv_last_page_len_buf = pages, last

    def run(self, q, pages, *, out, return_lse, enable_pdl):
        out.fill_(torch.nan)
        lse = torch.full(q.shape[:2], torch.nan)
        keys, values = pages if self.layout == "NHD" else (x.transpose(1, 2) for x in pages)
        first = self._paged_kv_indptr_buf.tolist()
        for row, (start, stop) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            if start == stop:
                continue
            length = (first[row + 1] - first[row] - 1) * self.block + self._paged_kv_last_page_len_buf[row].item()
            assert 0 < length <= self.planned[row], "the plan does not reach the sequence's end"
            which = self.indices[first[row] : first[row] + -(-length // self.block)].long()
            out[start:stop], total = self._one(
                q[start:stop], keys[which].flatten(0, 1)[:length], values[which].flatten(0, 1)[:length]
            )
            lse[start:stop] = total
        return (out, lse) if return_lse else out

    def _one(self, q, keys, values):
        """[Q, H, dim] and float32 [Q, H], a logarithm to base 2. What is masked is multiplied with 0."""
        count, length, group = len(q), len(keys), q.shape[1] // keys.shape[1]
        keys, values = (x.float().repeat_interleave(group, 1) for x in (keys, values))
        at, key = torch.arange(count)[:, None] + length - count, torch.arange(length)
        scores = torch.einsum("qhd,khd->qhk", q.float(), keys) * self.scale
        if self.cap:
            scores = self.cap * torch.tanh(scores / self.cap)
        hidden = (key > at) if self.causal else torch.zeros(count, length, dtype=torch.bool)
        if self.left >= 0:
            hidden |= key < at - self.left
        scores = scores.masked_fill(hidden[:, None], -torch.inf)
        return torch.einsum("qhk,khd->qhd", scores.softmax(-1), values).to(q.dtype), scores.logsumexp(-1) / math.log(2)


@pytest.fixture
def library(monkeypatch):
    """The stand-in is what is imported; ``asked(offer)`` is ``testing``'s ``AskedBackend`` on this CPU."""
    module = ModuleType("flashinfer")
    module.BatchPrefillWithPagedKVCacheWrapper = Wrapper
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    for name in ("backend", "planner"):
        monkeypatch.delitem(sys.modules, f"vllm_plugin_flashinfer.{name}", raising=False)
    import vllm_plugin_flashinfer.planner as planner

    monkeypatch.setattr(planner, "workspace_bytes", lambda config: 1024)
    monkeypatch.setattr(planner, "PinnedBuffers", lambda first: SimpleNamespace(lend=lambda *a: nullcontext()))

    def asked(offer):
        return SimpleNamespace(
            torch_device=torch.device("cpu"), offer=lambda query: offer, views=lambda layout, query: HeadLayout(layout)
        )

    yield asked
    for name in ("backend", "planner"):  # the real library's next time
        sys.modules.pop(f"vllm_plugin_flashinfer.{name}", None)
